import { useSyncExternalStore } from "react";

const LOCALE = "en";
const TICK_MS = 15_000;
const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
/** Older than this, the date says more than the distance. */
const RELATIVE_SECONDS = 7 * 86_400;

const relative = new Intl.RelativeTimeFormat(LOCALE, { numeric: "auto", style: "narrow" });
const day = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "long" });

/** How long before `now` (milliseconds) `then` was, in words. */
export function formatRelative(then: Date, now: number): string {
  const seconds = Math.max(0, (now - then.getTime()) / 1000);
  if (seconds >= RELATIVE_SECONDS) return day.format(then);
  for (const [unit, size] of UNITS) {
    if (seconds >= size) return relative.format(-Math.floor(seconds / size), unit);
  }
  return "now";
}

let now = Date.now();

function subscribe(listener: () => void): () => void {
  const timer = setInterval(() => {
    now = Date.now();
    listener();
  }, TICK_MS);
  return () => clearInterval(timer);
}

/** A moment in words that stay true, with the full date and time on hover. */
export function RelativeTime({ at }: { at: string }) {
  const current = useSyncExternalStore(subscribe, () => now);
  const then = new Date(at);
  return (
    <time dateTime={at} title={full.format(then)}>
      {formatRelative(then, Math.max(current, then.getTime()))}
    </time>
  );
}
