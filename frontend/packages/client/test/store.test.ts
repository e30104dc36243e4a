import { afterEach, expect, test, vi } from "vitest";
import { Store } from "../src/store.ts";

afterEach(() => {
  vi.unstubAllGlobals();
});

test("a listener that throws is heard of, and keeps nothing from the others", () => {
  const later: (() => void)[] = [];
  vi.stubGlobal("queueMicrotask", (task: () => void) => later.push(task));
  const store = new Store((inbox) => inbox);
  const heard: string[] = [];
  store.subscribe(() => {
    throw new Error("of the page");
  });
  store.subscribe(() => heard.push(store.get().status));
  store.set({ status: "loading" });
  expect(heard).toEqual(["loading"]);
  expect(later).toHaveLength(1);
  expect(later[0]).toThrow("of the page");
});
