/** Quiet hours by weekday: what the page can edit of them, and all of them in words. */

import type { UserSettings } from "@notify/client";

/** As the settings have it; `null` leaves it to the window of the preferences. */
export type Schedule = UserSettings["quiet_hours"];
/** Local times of its start and end. */
export type Window = readonly [start: string, end: string];

export const DAYS = [1, 2, 3, 4, 5, 6, 7] as const;
const WORKDAYS = [1, 2, 3, 4, 5] as const;
const WEEKEND = [6, 7] as const;

export const FULL_DAY: Window = ["00:00", "24:00"];
export const NIGHT: Window = ["22:00", "07:00"];

/** A window, or none, for all days from Monday to Friday, and one for both of the weekend. */
export interface WeekParts {
  workdays: Window | null;
  weekend: Window | null;
}

export type Part = keyof WeekParts;

/** What a schedule is in these parts; `null` if it is more than they can say. */
export function partsOf(schedule: NonNullable<Schedule>): WeekParts | null {
  const workdays = commonOf(schedule, WORKDAYS);
  const weekend = commonOf(schedule, WEEKEND);
  return workdays === undefined || weekend === undefined ? null : { workdays, weekend };
}

export function scheduleOf({ workdays, weekend }: WeekParts): Record<string, [string, string][]> {
  const schedule: Record<string, [string, string][]> = {};
  for (const day of DAYS) {
    const window = day <= 5 ? workdays : weekend;
    if (window) schedule[day] = [[...window]];
  }
  return schedule;
}

/** The one window of all these days, `null` if they have none, `undefined` if they differ. */
function commonOf(
  schedule: NonNullable<Schedule>,
  days: readonly number[],
): Window | null | undefined {
  const all = days.map((day) => schedule[day] ?? []);
  const [first = []] = all;
  if (first.length > 1 || new Set(all.map((windows) => JSON.stringify(windows))).size > 1) {
    return undefined;
  }
  const [start, end] = first[0] ?? [];
  return start === undefined || end === undefined ? null : [start, end];
}

const SHORT_NAMES = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"] as const;
const NAMES = [
  "Monday",
  "Tuesday",
  "Wednesday",
  "Thursday",
  "Friday",
  "Saturday",
  "Sunday",
] as const;

export const dayName = (day: number): string => NAMES[day - 1] ?? "";
export const shortDayName = (day: number): string => SHORT_NAMES[day - 1] ?? "";

/** Such as `Mon–Fri`, `Sat, Sun` or `no day`. */
export function describeDays(days: readonly number[]): string {
  if (days.length === 0) return "no day";
  if (days.length === DAYS.length) return "every day";
  const runs: number[][] = [];
  for (const day of [...days].sort()) {
    const run = runs.at(-1);
    if (run?.at(-1) === day - 1) run.push(day);
    else runs.push([day]);
  }
  return runs.flatMap(describeRun).join(", ");
}

function describeRun(run: readonly number[]): string[] {
  const names = run.map(shortDayName);
  return names.length > 2 ? [`${names[0]}–${names.at(-1)}`] : names;
}

/** Such as `22:00–07:00` or `all day`. */
export const describeWindow = ([start, end]: Window): string =>
  start === FULL_DAY[0] && end === FULL_DAY[1] ? "all day" : `${clock(start)}–${clock(end)}`;

/** Days that are alike together, with the windows that start on them. */
export function describeSchedule(schedule: NonNullable<Schedule>): [days: string, when: string][] {
  const alike = new Map<string, number[]>();
  for (const day of DAYS) {
    const windows = (schedule[day] ?? []).map(([start = "", end = ""]) =>
      describeWindow([start, end]),
    );
    const when = windows.join(", ") || "none";
    alike.set(when, [...(alike.get(when) ?? []), day]);
  }
  return [...alike].map(([when, days]) => [describeDays(days), when]);
}

/** A time of the day without its seconds, as far as there are none. */
export const clock = (time: string): string => time.replace(/^(\d\d:\d\d):00$/, "$1");
