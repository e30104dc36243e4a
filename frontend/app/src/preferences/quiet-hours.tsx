import { useId } from "react";
import type { Change, Choices } from "./choices.ts";
import { Refused, Section, SelectField, TimeField } from "./fields.tsx";
import { useProblem, useSaving, useSavingState } from "./saving.tsx";
import {
  clock,
  DAYS,
  dayName,
  describeSchedule,
  FULL_DAY,
  NIGHT,
  type Part,
  partsOf,
  type Schedule,
  scheduleOf,
  shortDayName,
  type WeekParts,
  type Window,
} from "./schedule.ts";

/** `custom` is a schedule that another program has set, and that this page can only replace. */
type Mode = "off" | "window" | "parts" | "custom";

const LABELS: Readonly<Record<Mode, string>> = {
  off: "Off",
  window: "The same on chosen days",
  parts: "Workdays and weekend apart",
  custom: "By weekday, set elsewhere",
};

/** When pushes wait. */
export function QuietHours() {
  const saving = useSaving();
  const { choices } = useSavingState();
  const problem = useProblem("settings", "quiet_hours");
  const mode = modeOf(choices);
  const schedule = choices.settings.quiet_hours;
  const name = useId();
  return (
    <Section
      title="Quiet hours"
      about="Pushes wait until they end. What is critical comes nevertheless."
    >
      <fieldset className="line line--modes">
        <legend className="visually-hidden">Quiet hours</legend>
        {(Object.keys(LABELS) as Mode[])
          .filter((one) => one !== "custom" || mode === "custom")
          .map((one) => (
            <label key={one} className="check">
              <input
                type="radio"
                name={name}
                checked={one === mode}
                onChange={() => saving.save(...changesTo(one, choices))}
              />
              {LABELS[one]}
            </label>
          ))}
      </fieldset>
      {mode === "window" && <OneWindow />}
      {mode === "parts" && schedule && <Parts schedule={schedule} />}
      {mode === "custom" && schedule && <Custom schedule={schedule} />}
      {problem && mode !== "parts" && (
        <div className="line">
          <Refused problem={problem} />
        </div>
      )}
    </Section>
  );
}

function modeOf({ global, settings }: Choices): Mode {
  const schedule = settings.quiet_hours;
  if (schedule === null) return global.quiet_hours_start === null ? "off" : "window";
  const parts = partsOf(schedule);
  if (parts === null) return "custom";
  return parts.workdays || parts.weekend ? "parts" : "off";
}

/** What is kept of a window is used again. */
function changesTo(mode: Mode, { global }: Choices): Change[] {
  const { quiet_hours_start: start, quiet_hours_end: end } = global;
  const has = start !== null && end !== null;
  const window: Window = has ? [start.slice(0, 5), end.slice(0, 5)] : NIGHT;
  const [quiet_hours_start, quiet_hours_end] = window;
  const byWeekday = (quiet_hours: Schedule): Change => ({
    target: "settings",
    body: { quiet_hours: quiet_hours as Record<string, [string, string][]> | null },
  });
  switch (mode) {
    case "off":
      return [byWeekday({})];
    case "window":
      return [
        ...(has
          ? []
          : [{ target: "global", body: { quiet_hours_start, quiet_hours_end } } as const]),
        byWeekday(null),
      ];
    case "parts":
      return [byWeekday(scheduleOf({ workdays: window, weekend: window }))];
    case "custom":
      return [];
  }
}

function OneWindow() {
  const saving = useSaving();
  const { quiet_hours_start, quiet_hours_end, quiet_hours_days } = useSavingState().choices.global;
  const problems = {
    start: useProblem("global", "quiet_hours_start"),
    end: useProblem("global", "quiet_hours_end"),
    days: useProblem("global", "quiet_hours_days"),
  };

  function turn(day: number, on: boolean) {
    const days = DAYS.filter((one) => (one === day ? on : quiet_hours_days.includes(one)));
    saving.save({ target: "global", body: { quiet_hours_days: days } });
  }

  return (
    <div className="line line--window">
      <div className="line--fields">
        <TimeField
          label="From"
          value={quiet_hours_start ?? ""}
          problem={problems.start}
          onChange={(time) => saving.save({ target: "global", body: { quiet_hours_start: time } })}
        />
        <TimeField
          label={endLabel(quiet_hours_start, quiet_hours_end)}
          value={quiet_hours_end ?? ""}
          problem={problems.end}
          onChange={(time) => saving.save({ target: "global", body: { quiet_hours_end: time } })}
        />
      </div>
      <fieldset className="days">
        <legend>Starting on</legend>
        {DAYS.map((day) => (
          <label key={day} className="day">
            <input
              type="checkbox"
              className="day__input"
              checked={quiet_hours_days.includes(day)}
              aria-label={dayName(day)}
              onChange={({ target }) => turn(day, target.checked)}
            />
            <span aria-hidden="true">{shortDayName(day)}</span>
          </label>
        ))}
        {problems.days && <Refused problem={problems.days} />}
      </fieldset>
      {quiet_hours_days.length === 0 && (
        <p className="line__about">No day is chosen, so there are no quiet hours.</p>
      )}
    </div>
  );
}

function Custom({ schedule }: { schedule: NonNullable<Schedule> }) {
  return (
    <div className="line">
      <dl className="schedule">
        {describeSchedule(schedule).map(([days, when]) => (
          <div key={days}>
            <dt>{days}</dt>
            <dd>{when}</dd>
          </div>
        ))}
      </dl>
      <p className="line__about">It can only be replaced here, by choosing something else.</p>
    </div>
  );
}

const PARTS: readonly (readonly [Part, string, days: readonly number[]])[] = [
  ["workdays", "Monday to Friday", [1, 2, 3, 4, 5]],
  ["weekend", "Saturday and Sunday", [6, 7]],
];

type Kind = "none" | "hours" | "all day";

const KINDS: readonly (readonly [Kind, string])[] = [
  ["hours", "From … to"],
  ["all day", "All day"],
  ["none", "None"],
];

function Parts({ schedule }: { schedule: NonNullable<Schedule> }) {
  const parts = partsOf(schedule);
  return (
    parts &&
    PARTS.map(([part, label, days]) => (
      <WeekPart key={part} part={part} label={label} days={days} parts={parts} />
    ))
  );
}

interface WeekPartProps {
  part: Part;
  label: string;
  days: readonly number[];
  parts: WeekParts;
}

function WeekPart({ part, label, days, parts }: WeekPartProps) {
  const saving = useSaving();
  const ofDays = useProblem("settings", ...days.map((day) => `quiet_hours.${day}`));
  const ofAll = useProblem("settings", "quiet_hours");
  const problem = ofDays ?? (ofAll?.path === "quiet_hours" ? ofAll : undefined);
  const window = parts[part];
  const kind = kindOf(window);

  function choose(chosen: Window | null) {
    const quiet_hours = scheduleOf({ ...parts, [part]: chosen });
    saving.save({ target: "settings", body: { quiet_hours } });
  }

  return (
    <fieldset className="line week-part">
      <legend className="line__name">{label}</legend>
      <div className="line--fields">
        <SelectField
          label={<span className="visually-hidden">Quiet</span>}
          value={kind}
          options={KINDS}
          onChange={(next) =>
            choose(next === "none" ? null : next === "all day" ? FULL_DAY : NIGHT)
          }
        />
        {window && kind === "hours" && (
          <>
            <TimeField
              label="From"
              value={window[0]}
              onChange={(time) => choose([time, window[1]])}
            />
            <TimeField
              label={endLabel(...window)}
              value={midnight(window[1])}
              onChange={(time) => choose([window[0], time])}
            />
          </>
        )}
      </div>
      {problem && <Refused problem={problem} />}
    </fieldset>
  );
}

function kindOf(window: Window | null): Kind {
  if (window === null) return "none";
  return window.join() === FULL_DAY.join() ? "all day" : "hours";
}

/** The end of a day is the beginning of the next, which fields for times can show. */
const midnight = (time: string) => (time === FULL_DAY[1] ? "00:00" : clock(time));

const endLabel = (start: string | null, end: string | null) =>
  start !== null && end !== null && end <= start ? "To, on the next day" : "To";
