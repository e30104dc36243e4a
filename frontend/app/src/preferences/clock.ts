/** Instants and zones. */

/** The zone of this browser. */
export const ownZone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone;

const HOUR_MS = 3_600_000;
const MORNING = 8;

export const inAnHour = (now: number): Date => new Date(now + HOUR_MS);

/** Tomorrow at eight in the morning, where `zone` is; the first such instant. */
export function tomorrowMorning(now: number, zone: string): Date {
  const { year, month, day } = partsIn(now, zone);
  const wanted = Date.UTC(year, month - 1, day + 1, MORNING);
  // Its offset is asked for twice, since it may change in the night.
  const guess = wanted - offsetIn(wanted, zone);
  return new Date(wanted - offsetIn(guess, zone));
}

/** How far a zone's clocks are ahead of UTC, in milliseconds. */
function offsetIn(instant: number, zone: string): number {
  const { year, month, day, hour, minute, second } = partsIn(instant, zone);
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(instant / 1000) * 1000;
}

type Parts = Record<"year" | "month" | "day" | "hour" | "minute" | "second", number>;

function partsIn(instant: number, zone: string): Parts {
  const format = new Intl.DateTimeFormat("en-US", {
    calendar: "gregory",
    numberingSystem: "latn",
    timeZone: zone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });
  return Object.fromEntries(
    format.formatToParts(instant).map(({ type, value }) => [type, Number(value)]),
  ) as Parts;
}

/** Such as `tomorrow, 08:00`, in words of the page, as the clocks of `zone` show it. */
export function describeUntil(instant: string, now: number, zone: string): string {
  const at = Date.parse(instant);
  const time = new Intl.DateTimeFormat("en-GB", {
    timeZone: zone,
    hour: "2-digit",
    minute: "2-digit",
  }).format(at);
  const days = dayNumber(at, zone) - dayNumber(now, zone);
  if (days === 0) return time;
  if (days === 1) return `tomorrow, ${time}`;
  const date = new Intl.DateTimeFormat("en-GB", { timeZone: zone, dateStyle: "medium" }).format(at);
  return `${date}, ${time}`;
}

function dayNumber(instant: number, zone: string): number {
  const { year, month, day } = partsIn(instant, zone);
  return Date.UTC(year, month - 1, day) / (24 * HOUR_MS);
}

/** Every zone the browser knows, by region, with those that are asked for in any case. */
export function zonesByRegion(...also: (string | null)[]): [region: string, zones: string[]][] {
  const names = new Set(["UTC", ...Intl.supportedValuesOf("timeZone")]);
  for (const name of also) if (name !== null) names.add(name);
  const regions = new Map<string, string[]>();
  for (const name of [...names].sort()) {
    const region = name.includes("/") ? name.slice(0, name.indexOf("/")) : "Other";
    regions.set(region, [...(regions.get(region) ?? []), name]);
  }
  return [...regions];
}

/** Such as `Buenos Aires, Argentina` of `America/Argentina/Buenos_Aires`. */
export const placeOf = (zone: string): string =>
  zone.split("/").slice(1).reverse().join(", ").replaceAll("_", " ") || zone;
