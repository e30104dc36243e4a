import { type ReactNode, useId, useRef } from "react";
import { CheckIcon, TypeIcon } from "../icons.tsx";
import {
  differencesOf,
  type Field,
  type Frequency,
  RESET,
  standingOf,
  type TypePreference,
} from "./choices.ts";
import { Refused, Section, SelectField, Switch } from "./fields.tsx";
import { FREQUENCIES, frequencyName, TYPES } from "./names.ts";
import { useProblem, useSaving, useSavingState } from "./saving.tsx";
import { clock, dayName, describeDays, describeWindow } from "./schedule.ts";

const AS_FOR_ALL = "";

/** What holds for each type: as for all, or else. */
export function Types() {
  const saving = useSaving();
  const { items } = useSavingState().choices;
  const own = items.filter(({ updated_at }) => updated_at !== null);
  return (
    <Section
      title="By type"
      about={
        <>
          <p>A type follows what you chose above until you choose something else for it here.</p>
          <button
            type="button"
            className="button part__tool"
            aria-disabled={own.length === 0}
            data-idle={own.length === 0 || undefined}
            onClick={() =>
              own.length > 0 &&
              saving.save(
                ...own.map(({ notification_type }) => ({
                  target: notification_type,
                  body: RESET,
                })),
              )
            }
          >
            Reset all types
          </button>
        </>
      }
    >
      <ul>
        {items.map((item) => (
          <li key={item.notification_type}>
            <Type item={item} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Type({ item }: { item: TypePreference }) {
  const saving = useSaving();
  const { global } = useSavingState().choices;
  const target = item.notification_type;
  const problem = useProblem(target, ...Object.keys(RESET));
  const [name, about] = TYPES[target];
  const group = useRef<HTMLFieldSetElement>(null);
  const id = useId();
  const isPushVetoed = !global.all_push_enabled;
  const isEmailVetoed = !global.all_email_enabled;
  const vetoed = [...(isPushVetoed ? ["push"] : []), ...(isEmailVetoed ? ["email"] : [])];
  return (
    <fieldset ref={group} className="type" tabIndex={-1} data-standing={standingOf(item, global)}>
      <legend className="visually-hidden">{name}</legend>
      <span className="card__tile" data-type={target}>
        <TypeIcon type={target} />
      </span>
      <div className="type__text">
        <p className="type__name" aria-hidden="true">
          {name}
        </p>
        <p className="line__about">{about}</p>
        <Standing
          item={item}
          veto={vetoed.length > 0 && <span id={`${id}-veto`}>{describeVeto(vetoed)}</span>}
          onReset={() => {
            saving.save({ target, body: RESET });
            group.current?.focus();
          }}
        />
      </div>
      <div className="type__controls">
        <span className="switch">
          <span>In-app</span>
          <span className="type__always">
            <CheckIcon />
            <span className="visually-hidden">always on</span>
          </span>
        </span>
        <Switch
          label="Push"
          checked={item.push_enabled}
          disabled={isPushVetoed}
          describedBy={vetoed.length > 0 ? `${id}-veto` : undefined}
          onChange={(on) => saving.save({ target, body: { push_enabled: on ? null : false } })}
        />
        <Switch
          label="Email"
          checked={item.email_enabled}
          disabled={isEmailVetoed}
          describedBy={vetoed.length > 0 ? `${id}-veto` : undefined}
          onChange={(on) => saving.save({ target, body: { email_enabled: on ? null : false } })}
        />
        <SelectField
          label={<span className="visually-hidden">How often email comes</span>}
          value={
            item.digest_frequency === global.default_digest_frequency
              ? AS_FOR_ALL
              : item.digest_frequency
          }
          options={[
            [AS_FOR_ALL, `As for all (${frequencyName(global.default_digest_frequency)})`],
            ...FREQUENCIES.filter(([frequency]) => frequency !== global.default_digest_frequency),
          ]}
          disabled={!item.email_enabled}
          onChange={(frequency: Frequency | typeof AS_FOR_ALL) =>
            saving.save({
              target,
              body: { digest_frequency: frequency === AS_FOR_ALL ? null : frequency },
            })
          }
        />
      </div>
      {problem && <Refused problem={problem} />}
    </fieldset>
  );
}

/** Such as `Push and email are off for all.` */
const describeVeto = (channels: readonly string[]): string =>
  `${channels.join(" and ")} ${channels.length > 1 ? "are" : "is"} off for all.`.replace(
    /^./,
    (letter) => letter.toUpperCase(),
  );

interface StandingProps {
  item: TypePreference;
  veto: ReactNode;
  onReset: () => void;
}

/** Whether the type has choices of its own, what only they say, and how to take them back. */
function Standing({ item, veto, onReset }: StandingProps) {
  const { global, settings } = useSavingState().choices;
  const standing = standingOf(item, global);
  const own = describeOwn(item, differencesOf(item, global), settings.quiet_hours === null);
  if (standing === "inherits")
    return <p className="type__standing">{veto || "As for all types"}</p>;
  return (
    <div className="type__standing">
      <span className="own">Own choices</span>
      {veto}
      {standing === "says the same" && <span>At present the same as for all.</span>}
      {own && <span>{own}</span>}
      <button type="button" className="reset" onClick={onReset}>
        Reset to all
      </button>
    </div>
  );
}

/** What a type says that no control of it shows. */
function describeOwn(
  item: TypePreference,
  differences: readonly Field[],
  hasOneWindow: boolean,
): string {
  const differs = (...fields: Field[]) => fields.some((field) => differences.includes(field));
  const { digest_frequency, digest_time, digest_day } = item;
  const { quiet_hours_start: start, quiet_hours_end: end, quiet_hours_days: days } = item;
  const said: string[] = [];
  const isDigest = digest_frequency === "daily" || digest_frequency === "weekly";
  if (isDigest && differs("digest_time", "digest_day")) {
    const day = digest_frequency === "weekly" ? `on ${dayName(digest_day)} ` : "";
    said.push(`Digest ${day}at ${clock(digest_time)}.`);
  }
  if (hasOneWindow && differs("quiet_hours_start", "quiet_hours_end", "quiet_hours_days")) {
    if (start !== null && end !== null) {
      said.push(`Quiet ${describeWindow([start, end])}, ${describeDays(days)}.`);
    }
  }
  return said.join(" ");
}
