import { Section, SelectField, TimeField } from "./fields.tsx";
import { FREQUENCIES } from "./names.ts";
import { useProblem, useSaving, useSavingState } from "./saving.tsx";
import { DAYS, dayName } from "./schedule.ts";

const WEEKDAYS = DAYS.map((day) => [String(day), dayName(day)] as const);

/** How often email comes, and when. */
export function Digests() {
  const saving = useSaving();
  const { global, items } = useSavingState().choices;
  const problems = {
    frequency: useProblem("global", "default_digest_frequency"),
    time: useProblem("global", "default_digest_time"),
    day: useProblem("global", "default_digest_day"),
  };
  const used = new Set([
    global.default_digest_frequency,
    ...items.map(({ digest_frequency }) => digest_frequency),
  ]);
  return (
    <Section title="Emails" about="How often they come, for all types that say nothing else.">
      <div className="line line--fields">
        <SelectField
          label="How often"
          value={global.default_digest_frequency}
          options={FREQUENCIES}
          problem={problems.frequency}
          onChange={(frequency) =>
            saving.save({ target: "global", body: { default_digest_frequency: frequency } })
          }
        />
        {(used.has("daily") || used.has("weekly")) && (
          <TimeField
            label="Digests come at"
            value={global.default_digest_time}
            problem={problems.time}
            onChange={(time) =>
              saving.save({ target: "global", body: { default_digest_time: time } })
            }
          />
        )}
        {used.has("weekly") && (
          <SelectField
            label="Weekly ones on"
            value={String(global.default_digest_day)}
            options={WEEKDAYS}
            problem={problems.day}
            onChange={(day) =>
              saving.save({ target: "global", body: { default_digest_day: Number(day) } })
            }
          />
        )}
      </div>
    </Section>
  );
}
