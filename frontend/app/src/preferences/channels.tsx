import { useEffect, useState } from "react";
import { describeUntil, inAnHour, ownZone, tomorrowMorning } from "./clock.ts";
import { Refused, Section, Switch } from "./fields.tsx";
import { useProblem, useSaving, useSavingState } from "./saving.tsx";

/** Email and push for all types, and a pause of pushes. */
export function Channels() {
  const saving = useSaving();
  const { choices } = useSavingState();
  const { all_email_enabled, all_push_enabled } = choices.global;
  return (
    <Section
      title="Channels"
      about="What is off here is off for every type. The notification center is always on."
    >
      <div className="line">
        <Switch
          label={
            <Named name="Email" about="Letters and digests to your address." id="about-email" />
          }
          describedBy="about-email"
          checked={all_email_enabled}
          onChange={(on) => saving.save({ target: "global", body: { all_email_enabled: on } })}
        />
      </div>
      <div className="line">
        <Switch
          label={
            <Named name="Push" about="On all devices that you turned it on for." id="about-push" />
          }
          describedBy="about-push"
          checked={all_push_enabled}
          onChange={(on) => saving.save({ target: "global", body: { all_push_enabled: on } })}
        />
      </div>
      <Pause />
    </Section>
  );
}

function Named({ name, about, id }: { name: string; about: string; id: string }) {
  return (
    <>
      <span className="line__name">{name}</span>
      <span className="line__about" id={id} aria-hidden="true">
        {about}
      </span>
    </>
  );
}

function Pause() {
  const saving = useSaving();
  const { pause_until, timezone } = useSavingState().choices.settings;
  const problem = useProblem("settings", "pause_until");
  const isPaused = useIsAhead(pause_until);
  const zone = timezone ?? ownZone();
  const pause = (until: Date | null) =>
    saving.save({
      target: "settings",
      body: { pause_until: until?.toISOString() ?? null },
    });
  return (
    <fieldset className="line line--pause">
      <legend className="line__name">Pause pushes</legend>
      <p className="line__about" role="status">
        {isPaused && pause_until
          ? `Paused until ${describeUntil(pause_until, Date.now(), zone)}.`
          : "Not paused. What comes meanwhile is pushed afterwards, if it is still unread."}
      </p>
      <div className="line__tools">
        <button type="button" className="button" onClick={() => pause(inAnHour(Date.now()))}>
          1 hour
        </button>
        <button
          type="button"
          className="button"
          onClick={() => pause(tomorrowMorning(Date.now(), zone))}
        >
          Until tomorrow
        </button>
        <button
          type="button"
          className="button"
          // Still focusable, so that who has just pressed it is not thrown off the page.
          aria-disabled={!isPaused}
          data-idle={!isPaused || undefined}
          onClick={() => isPaused && pause(null)}
        >
          Off
        </button>
      </div>
      {problem && <Refused problem={problem} />}
    </fieldset>
  );
}

/** The longest delay that timers take. */
const LONGEST_MS = 2 ** 31 - 1;

/** Whether an instant is yet to come; renders again once it has. */
function useIsAhead(instant: string | null): boolean {
  const [now, setNow] = useState(Date.now);
  const left = instant === null ? 0 : Date.parse(instant) - Math.max(now, Date.now());
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setNow(Date.now()), Math.min(left + 1, LONGEST_MS));
    return () => clearTimeout(timer);
  }, [left]);
  return left > 0;
}
