/** What the page keeps in the browser, or, where the browser refuses that, until it is closed. */

type Area = "localStorage" | "sessionStorage";

const refused = new Map<string, string>();

export function stored(area: Area, key: string): string | null {
  try {
    return window[area].getItem(key);
  } catch {
    return refused.get(key) ?? null;
  }
}

/** @param value `null` to keep nothing. */
export function store(area: Area, key: string, value: string | null): void {
  try {
    if (value === null) window[area].removeItem(key);
    else window[area].setItem(key, value);
  } catch {
    if (value === null) refused.delete(key);
    else refused.set(key, value);
  }
}
