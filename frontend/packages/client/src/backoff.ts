const BASE_MS = 500;
const CAP_MS = 30_000;

/**
 * Full-jitter exponential backoff: anywhere between at once and a limit that doubles with each
 * failure in a row, so that clients dropped together do not come back together.
 *
 * @param failures failures before this one.
 * @param random a number in [0, 1).
 * @returns milliseconds to wait.
 */
export function backoff(failures: number, random: number): number {
  return random * Math.min(CAP_MS, BASE_MS * 2 ** failures);
}
