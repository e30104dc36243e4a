import { useSyncExternalStore } from "react";

/** Tells this page of the addresses that it gives itself, as `popstate` tells of the others. */
const MOVED = "notify:moved";

/** The path of the address that the page shows. */
export const usePath = (): string => useSyncExternalStore(subscribe, () => location.pathname);

/** Shows the view of another path, as a new entry of the browser's history. */
export function navigate(path: string): void {
  if (path === location.pathname) return;
  history.pushState(null, "", path);
  scrollTo({ top: 0, behavior: "instant" });
  dispatchEvent(new Event(MOVED));
}

function subscribe(listener: () => void): () => void {
  addEventListener("popstate", listener);
  addEventListener(MOVED, listener);
  return () => {
    removeEventListener("popstate", listener);
    removeEventListener(MOVED, listener);
  };
}
