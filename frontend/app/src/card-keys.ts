import type { Notification } from "@notify/client";
import { useNotifications, useNotificationsClient } from "@notify/react";
import { type RefObject, useEffect, useLayoutEffect, useRef } from "react";
import { remove, toggleRead } from "./item-changes.ts";
import { store, stored } from "./storage.ts";

const EDITABLE = "input, select, textarea, dialog, [contenteditable]";
const ENABLED_KEY = "notify.keys";

/** Single keys can be turned off, for who speaks to the page or types by accident. */
export const keysAreOn = (): boolean => stored("localStorage", ENABLED_KEY) !== "off";
export const turnKeys = (on: boolean): void =>
  store("localStorage", ENABLED_KEY, on ? null : "off");

/** What each key does, in words. */
export const KEYS: readonly (readonly [keys: readonly string[], does: string])[] = [
  [["j", "↓"], "Next notification"],
  [["k", "↑"], "Previous notification"],
  [["r"], "Mark as read or unread"],
  [["Delete", "#"], "Delete"],
  [["?"], "Show this help"],
];

const cardsOf = (place: HTMLElement | null) => [
  ...(place?.querySelectorAll<HTMLElement>("[data-id] > article") ?? []),
];
const cardAt = (target: EventTarget | null) =>
  target instanceof Element ? target.closest<HTMLElement>("[data-id] > article") : null;
const idOf = (card: Element | null) => card?.parentElement?.dataset["id"];

/** Whether a key pressed there may be meant for the cards: elsewhere it is somebody else's. */
function isMeant(event: KeyboardEvent, place: HTMLElement | null): boolean {
  const { target, key } = event;
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (!(target instanceof Element) || target.closest(EDITABLE)) return false;
  if (target !== document.body && !place?.contains(target)) return false;
  return key.length > 1 || keysAreOn();
}

/** Lets the cards in `place` be gone through and changed by keys, and read by following a link. */
export function useCardKeys(place: RefObject<HTMLElement | null>, onHelp: () => void): void {
  const client = useNotificationsClient();
  const help = useRef(onHelp);
  help.current = onHelp;

  useEffect(() => {
    const itemOf = (card: Element | null): Notification | undefined =>
      client.getState().items.find(({ id }) => id === idOf(card));

    function move(from: HTMLElement | null, step: number) {
      const cards = cardsOf(place.current);
      const to = from ? cards.indexOf(from) + step : 0;
      cards[Math.max(0, Math.min(to, cards.length - 1))]?.focus();
    }

    const everywhere: Readonly<Record<string, (card: HTMLElement | null) => void>> = {
      j: (card) => move(card, 1),
      k: (card) => move(card, -1),
      "?": () => help.current(),
    };
    const onCards: Readonly<Record<string, (card: HTMLElement, item: Notification) => void>> = {
      ArrowDown: (card) => move(card, 1),
      ArrowUp: (card) => move(card, -1),
      r: (_, item) => toggleRead(client, item),
      Delete: (_, item) => remove(client, item),
      "#": (_, item) => remove(client, item),
    };

    function onKeyDown(event: KeyboardEvent) {
      if (!isMeant(event, place.current)) return;
      const card = cardAt(event.target);
      const item = itemOf(card);
      const run = card && item && onCards[event.key];
      if (run) run(card, item);
      else if (everywhere[event.key]) everywhere[event.key]?.(card);
      else return;
      event.preventDefault();
    }

    /** A link that is followed, in whatever way, marks its notification as read. */
    function onFollow({ target, button }: MouseEvent) {
      const link = target instanceof Element && target.closest<HTMLElement>("a[href]");
      if (button > 1 || !link) return;
      const item = itemOf(cardAt(link));
      if (item?.read_at === null) void client.markRead(item.id);
      const action = link.dataset["action"];
      // Who follows a link has nothing to do about a click that could not be reported.
      if (item && action) client.api.click(item.id, action).catch(() => undefined);
    }

    const element = place.current;
    document.addEventListener("keydown", onKeyDown);
    element?.addEventListener("click", onFollow);
    element?.addEventListener("auxclick", onFollow);
    return () => {
      document.removeEventListener("keydown", onKeyDown);
      element?.removeEventListener("click", onFollow);
      element?.removeEventListener("auxclick", onFollow);
    };
  }, [client, place]);
}

/** Hands the focus of a card that is gone to the one that took its place, or else to `fallback`. */
export function useKeptFocus(
  place: RefObject<HTMLElement | null>,
  fallback: RefObject<HTMLElement | null>,
): void {
  // Runs again after each change of the list.
  useNotifications((state) => state.items);
  const held = useRef<{ id: string | undefined; at: number } | null>(null);

  useEffect(() => {
    const note = ({ target }: Event) => {
      const card = cardAt(target);
      const at = card ? cardsOf(place.current).indexOf(card) : -1;
      held.current = at < 0 ? null : { id: idOf(card), at };
    };
    document.addEventListener("focusin", note);
    document.addEventListener("pointerdown", note);
    return () => {
      document.removeEventListener("focusin", note);
      document.removeEventListener("pointerdown", note);
    };
  }, [place]);

  useLayoutEffect(() => {
    if (!held.current) return;
    const { id, at } = held.current;
    const cards = cardsOf(place.current);
    const now = cards.findIndex((card) => idOf(card) === id);
    if (now >= 0) {
      held.current = { id, at: now };
    } else if (document.activeElement === document.body) {
      (cards[Math.min(at, cards.length - 1)] ?? fallback.current)?.focus();
    }
  });
}
