import { expect, test } from "vitest";
import {
  describeUntil,
  placeOf,
  tomorrowMorning,
  zonesByRegion,
} from "../src/preferences/clock.ts";
import {
  describeDays,
  describeSchedule,
  describeWindow,
  partsOf,
  scheduleOf,
} from "../src/preferences/schedule.ts";

const NIGHT = ["22:00", "07:00"] as const;
const ALL_DAY = ["00:00", "24:00"] as const;

test.each([
  { workdays: NIGHT, weekend: ALL_DAY },
  { workdays: null, weekend: NIGHT },
  { workdays: NIGHT, weekend: null },
  { workdays: null, weekend: null },
])("workdays and weekend come back as they were: %j", (parts) => {
  expect(partsOf(scheduleOf(parts))).toEqual(parts);
});

test("a schedule has no window for days without", () => {
  expect(scheduleOf({ workdays: null, weekend: NIGHT })).toEqual({ 6: [NIGHT], 7: [NIGHT] });
});

test.each([
  { 1: [["22:00", "07:00"]] },
  { 6: [["22:00", "07:00"]], 7: [["23:00", "07:00"]] },
  {
    6: [
      ["12:00", "14:00"],
      ["22:00", "07:00"],
    ],
    7: [
      ["12:00", "14:00"],
      ["22:00", "07:00"],
    ],
  },
])("what two parts cannot say is not said by them: %j", (schedule) => {
  expect(partsOf(schedule as never)).toBeNull();
});

test("a schedule is told with alike days together", () => {
  const lunch = ["12:00", "13:30"];
  const schedule = {
    1: [["22:00", "07:00"]],
    3: [["22:00", "07:00"]],
    7: [lunch, ["00:00", "24:00"]],
  };
  expect(describeSchedule(schedule)).toEqual([
    ["Mon, Wed", "22:00–07:00"],
    ["Tue, Thu–Sat", "none"],
    ["Sun", "12:00–13:30, all day"],
  ]);
});

test.each([
  [[], "no day"],
  [[1, 2, 3, 4, 5], "Mon–Fri"],
  [[7, 6], "Sat, Sun"],
  [[1, 3, 4, 5, 7], "Mon, Wed–Fri, Sun"],
  [[1, 2, 3, 4, 5, 6, 7], "every day"],
])("the days %j are %s", (days, text) => {
  expect(describeDays(days)).toBe(text);
});

test("seconds of a time are told only where there are some", () => {
  expect(describeWindow(["22:00:00", "07:00:30"])).toBe("22:00–07:00:30");
});

test.each([
  ["an ordinary day", "2026-11-23T13:00:00Z", "Europe/Berlin", "2026-11-24T07:00:00.000Z"],
  [
    "a day that is over there already",
    "2026-11-23T20:00:00Z",
    "Asia/Tokyo",
    "2026-11-24T23:00:00.000Z",
  ],
  [
    "a day that has not begun there",
    "2026-11-23T03:00:00Z",
    "America/New_York",
    "2026-11-23T13:00:00.000Z",
  ],
  [
    "before the clocks go forward",
    "2027-03-27T12:00:00Z",
    "Europe/Berlin",
    "2027-03-28T06:00:00.000Z",
  ],
  [
    "before the clocks go back",
    "2026-10-24T12:00:00Z",
    "Europe/Berlin",
    "2026-10-25T07:00:00.000Z",
  ],
  ["the end of a year", "2026-12-31T12:00:00Z", "Asia/Kolkata", "2027-01-01T02:30:00.000Z"],
])("tomorrow morning, %s", (_, now, zone, expected) => {
  expect(tomorrowMorning(Date.parse(now), zone).toISOString()).toBe(expected);
});

test.each([
  ["2026-11-23T14:05:00Z", "15:05"],
  ["2026-11-24T07:00:00Z", "tomorrow, 08:00"],
  ["2026-12-24T07:00:00Z", "24 Dec 2026, 08:00"],
])("the pause until %s is told as %s", (until, text) => {
  expect(describeUntil(until, Date.parse("2026-11-23T13:00:00Z"), "Europe/Berlin")).toBe(text);
});

test("every zone is offered once, the stored one too, under its region", () => {
  const regions = zonesByRegion("US/Pacific", "UTC", null);
  const zones = regions.flatMap(([, names]) => names);
  expect(new Set(zones).size).toBe(zones.length);
  expect(zones).toEqual(expect.arrayContaining(["US/Pacific", "UTC", "Europe/Berlin"]));
  expect(regions.find(([region]) => region === "Europe")?.[1]).toContain("Europe/Berlin");
});

test("a zone is called by its place", () => {
  expect(placeOf("America/Argentina/Buenos_Aires")).toBe("Buenos Aires, Argentina");
  expect(placeOf("UTC")).toBe("UTC");
});
