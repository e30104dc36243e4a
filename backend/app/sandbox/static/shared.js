// What the sandbox's pages have in common. Text of others reaches the document through textContent
// only.

const CONFIRM_MS = 4000;

const clockTime = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});

export const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

export const $ = (id) => document.getElementById(id);

export function element(tag, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function shortTime(iso) {
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  return (isToday ? clockTime : dayAndTime).format(at);
}

/** Pairs of a definition list: name, value and perhaps a class. */
export const definitions = (lines) => lines.flatMap(([name, value, className]) =>
  [element("dt", { text: name }), element("dd", { text: value, className })]);

export const tableRow = ([name, value]) =>
  element("tr", {}, element("th", { scope: "row", text: name }), element("td", { text: value }));

/** Show the rows for these items, each made once and brought up to date. */
export function showRows(list, items, idOf, make, update) {
  const known = new Map([...list.children].map((child) => [child.id, child]));
  const isFirst = known.size === 0;
  const rows = items.map((item) => {
    const existing = known.get(idOf(item));
    const made = existing ?? make(item);
    if (!existing && !isFirst) made.classList.add("fresh");
    update(made, item);
    return made;
  });
  for (const child of [...list.children]) if (!rows.includes(child)) child.remove();
  // Rows that stay are not moved, so that scroll position and focus stay too.
  rows.forEach((made, index) => {
    if (list.children[index] !== made) list.insertBefore(made, list.children[index] ?? null);
  });
}

export function markSelected(list, rowId) {
  for (const child of list.children) child.setAttribute("aria-selected", String(child.id === rowId));
  const selected = rowId && $(rowId);
  if (selected) list.setAttribute("aria-activedescendant", selected.id);
  else list.removeAttribute("aria-activedescendant");
}

export function showFaults(faults) {
  const active = faults.filter((fault) => fault.remaining !== 0);
  $("faults").hidden = active.length === 0;
  $("faults-title").textContent = active.length === 1 ? "1 active fault" : `${active.length} active faults`;
  $("faults-list").replaceChildren(...active.map((fault) => element("li", { text: fault.summary })));
}

export function connection(state, text) {
  const status = $("connection");
  if (status.dataset.state === state) return;
  status.dataset.state = state;
  status.textContent = text;
}

/** Have a button ask before it does something that cannot be undone. */
export function onConfirmed(button, action) {
  const label = button.textContent;
  const disarm = () => {
    delete button.dataset.armed;
    button.textContent = label;
  };
  button.addEventListener("click", async () => {
    if (!("armed" in button.dataset)) {
      button.dataset.armed = "";
      button.textContent = "Really delete all?";
      setTimeout(disarm, CONFIRM_MS);
      return;
    }
    disarm();
    await action();
  });
}

export function showPart(name) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const isChosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

export function onPartChosen(choose) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    tab.addEventListener("click", () => choose(tab.id.slice("tab-".length)));
  }
  document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...document.querySelectorAll('[role="tab"]:not(:disabled)')];
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
}

/** Where an arrow key leads from the row at this index; undefined for other keys. */
export const rowAfter = (key, at) => ({
  ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: Number.MAX_SAFE_INTEGER, PageDown: at + 8, PageUp: at - 8,
})[key];

/** Call now and then, while the page is looked at; answers what calls at once. */
export function polling(poll, everyMs) {
  let waiting = null;
  const now = async () => {
    clearTimeout(waiting);
    await poll();
    clearTimeout(waiting);
    if (!document.hidden) waiting = setTimeout(now, everyMs);
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) now();
  });
  return now;
}
