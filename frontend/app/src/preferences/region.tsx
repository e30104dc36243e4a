import { useMemo, useState } from "react";
import { ownZone, placeOf, zonesByRegion } from "./clock.ts";
import { Field, Section, SelectField, TextField } from "./fields.tsx";
import { LANGUAGES } from "./names.ts";
import { useProblem, useSaving, useSavingState } from "./saving.tsx";

const UNSET = "";
const OTHER = "other";

/** Where the user's clock is, and which language they are written to in. */
export function Region() {
  return (
    <Section
      title="Time and language"
      about="All times on this page are those of your timezone. Emails and pushes come in your language where their texts are there in it."
    >
      <div className="line">
        <Timezone />
      </div>
      <div className="line">
        <Language />
      </div>
    </Section>
  );
}

function Timezone() {
  const saving = useSaving();
  const { timezone } = useSavingState().choices.settings;
  const problem = useProblem("settings", "timezone");
  const own = ownZone();
  const regions = useMemo(() => zonesByRegion(timezone, own), [timezone, own]);
  const choose = (zone: string | null) =>
    saving.save({ target: "settings", body: { timezone: zone } });
  return (
    <div className="line--fields">
      <Field label="Timezone" problem={problem}>
        {(field) => (
          <select
            {...field}
            value={timezone ?? UNSET}
            onChange={({ target }) => choose(target.value === UNSET ? null : target.value)}
          >
            <option value={UNSET}>Not chosen: the server’s default</option>
            {regions.map(([region, zones]) => (
              <optgroup key={region} label={region}>
                {zones.map((zone) => (
                  <option key={zone} value={zone}>
                    {placeOf(zone)}
                  </option>
                ))}
              </optgroup>
            ))}
          </select>
        )}
      </Field>
      <button
        type="button"
        className="button"
        // Still focusable, so that who has just pressed it is not thrown off the page.
        aria-disabled={timezone === own}
        data-idle={timezone === own || undefined}
        onClick={() => timezone !== own && choose(own)}
      >
        {timezone === own ? "As in this browser" : `Use this browser’s: ${placeOf(own)}`}
      </button>
    </div>
  );
}

function Language() {
  const saving = useSaving();
  const { locale } = useSavingState().choices.settings;
  const problem = useProblem("settings", "locale");
  const isListed = locale === null || LANGUAGES.some(([tag]) => tag === locale);
  const [wantsOther, setWantsOther] = useState(false);
  const isOther = wantsOther || !isListed;
  const choose = (tag: string | null) => saving.save({ target: "settings", body: { locale: tag } });
  return (
    <div className="line--fields">
      <SelectField
        label="Language"
        value={isOther ? OTHER : (locale ?? UNSET)}
        problem={isOther ? undefined : problem}
        options={[[UNSET, "Not chosen: the server’s default"], ...LANGUAGES, [OTHER, "Another…"]]}
        onChange={(tag) => {
          setWantsOther(tag === OTHER);
          if (tag !== OTHER) choose(tag === UNSET ? null : tag);
        }}
      />
      {isOther && (
        <TextField
          label="Language tag"
          placeholder="such as fr or de-AT"
          value={locale ?? ""}
          problem={problem}
          onChange={choose}
        />
      )}
    </div>
  );
}
