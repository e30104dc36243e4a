import { type RefObject, useLayoutEffect, useRef } from "react";

const TIMING: KeyframeAnimationOptions = { duration: 260, easing: "cubic-bezier(0.2, 0, 0, 1)" };

/**
 * Lets the list make room for an arrival: what it pushes down glides instead of jumping.
 *
 * Only at the top of the page, since further down the browser keeps what is read in its place.
 */
export function useListMotion(
  list: RefObject<HTMLElement | null>,
  arrivals: ReadonlySet<string>,
): void {
  const tops = useRef(new Map<string, number>());

  useLayoutEffect(() => {
    const rows = [...(list.current?.children ?? [])] as HTMLElement[];
    const before = tops.current;
    tops.current = new Map(rows.map((row) => [idOf(row), row.offsetTop]));
    if (scrollY > 0 || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const row of rows.filter(({ offsetTop }) => offsetTop < innerHeight * 2)) {
      const top = before.get(idOf(row));
      if (top === undefined) appear(row, arrivals);
      else if (top !== row.offsetTop) glide(row, top - row.offsetTop);
    }
  });
}

const idOf = (row: HTMLElement) => row.dataset["id"] ?? "";

const glide = (row: HTMLElement, from: number) =>
  row.animate([{ transform: `translateY(${from}px)` }, {}], TIMING);

const appear = (row: HTMLElement, arrivals: ReadonlySet<string>) =>
  arrivals.has(idOf(row)) && row.animate([{ opacity: 0 }, {}], TIMING);
