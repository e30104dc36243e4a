// The mailbox page. Text of mails reaches the document through textContent only; their markup is
// shown nowhere but in the sandboxed frame, from an address of its own.

const POLL_MS = 2000;
const CONFIRM_MS = 4000;
const LONGEST_CHIP = 24;
const PAGE_TITLE = "Sandbox mailbox";

const $ = (id) => document.getElementById(id);
const list = $("list");
const filter = $("filter");
const reader = $("reader");
const narrowScreen = matchMedia("(max-width: 760px)");
const clockTime = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
});
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

let shown = [];
let selectedId = null;
let openedId = null;
let preferredPart = "html";
let lastFeed = null;
let polling = null;

// --- elements ----------------------------------------------------------------------------------

function element(tag, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function displayName(address) {
  const named = /^\s*"?([^"<]*?)"?\s*<[^>]*>\s*$/.exec(address);
  return named?.[1] || address;
}

function shortTime(iso) {
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  return (isToday ? clockTime : dayAndTime).format(at);
}

const mails = (count) => `${count.toLocaleString()} ${count === 1 ? "mail" : "mails"}`;

// --- list --------------------------------------------------------------------------------------

function row(mail) {
  const made = element("li", { className: "row", role: "option", id: `row-${mail.id}`, "aria-selected": "false" },
    element("div", {},
      element("span", { className: "to", text: mail.to.join(", "), title: mail.to.join(", ") }),
      element("time", { text: shortTime(mail.received_at), datetime: mail.received_at })),
    element("div", {},
      element("span", { text: mail.subject || "(no subject)", title: mail.subject })),
    element("div", {},
      element("span", { className: "from", text: `from ${displayName(mail.from)}` }),
      element("span", { className: "marks" })),
  );
  made.addEventListener("click", () => open(mail.id));
  return made;
}

function marks(mail) {
  // Ids are too long to read here; the reader shows every tag.
  const chips = mail.tags.filter((tag) => tag.value.length <= LONGEST_CHIP).slice(0, 2).map((tag) =>
    element("span", { className: "chip", text: tag.value, title: `${tag.name}: ${tag.value}` }));
  if (mail.attempts > 1) {
    chips.unshift(element("span", {
      className: "chip repeat", text: `×${mail.attempts}`,
      title: `Asked for ${mail.attempts} times, stored once`,
    }));
  }
  return chips;
}

function showList(items) {
  const known = new Map([...list.children].map((child) => [child.id, child]));
  const isFirst = known.size === 0;
  const rows = items.map((mail) => {
    const existing = known.get(`row-${mail.id}`);
    const made = existing ?? row(mail);
    if (!existing && !isFirst) made.classList.add("fresh");
    if (made.dataset.attempts !== String(mail.attempts)) {
      made.dataset.attempts = mail.attempts;
      made.querySelector(".marks").replaceChildren(...marks(mail));
    }
    return made;
  });
  for (const child of [...list.children]) if (!rows.includes(child)) child.remove();
  // Rows that stay are not moved, so that scroll position and focus stay too.
  rows.forEach((made, index) => {
    if (list.children[index] !== made) list.insertBefore(made, list.children[index] ?? null);
  });
  shown = items;
  markSelected();
}

function markSelected() {
  for (const child of list.children) {
    child.setAttribute("aria-selected", String(child.id === `row-${selectedId}`));
  }
  const selected = selectedId && $(`row-${selectedId}`);
  if (selected) list.setAttribute("aria-activedescendant", selected.id);
  else list.removeAttribute("aria-activedescendant");
}

function showState(feed) {
  const wanted = filter.value.trim();
  const none = feed.items.length === 0;
  $("no-mail").hidden = !none;
  $("no-mail-title").textContent = wanted ? `No mail to “${wanted}”` : "No mail yet";
  $("no-mail-text").textContent = wanted
    ? "The filter looks for this text in the addresses of recipients."
    : "Mail the system sends in development lands here and goes nowhere else. This page shows it as it arrives.";
  $("clear-filter").hidden = !wanted;
  $("empty-mailbox").hidden = none && !wanted;
  $("count").textContent = feed.total > feed.items.length
    ? `Newest ${feed.items.length} of ${mails(feed.total)}`
    : mails(feed.total);

  const active = feed.faults.filter((fault) => fault.remaining !== 0);
  $("faults").hidden = active.length === 0;
  $("faults-title").textContent = active.length === 1 ? "1 active fault" : `${active.length} active faults`;
  $("faults-list").replaceChildren(...active.map((fault) => element("li", { text: fault.summary })));
  document.title = feed.total ? `(${feed.total}) ${PAGE_TITLE}` : PAGE_TITLE;
}

// --- reader ------------------------------------------------------------------------------------

async function show(id) {
  if (openedId === id) return;
  openedId = id;
  const response = await fetch(`/mails/${encodeURIComponent(id)}`).catch(() => null);
  if (openedId !== id) return;
  if (!response?.ok) {
    showNothing("This mail is not here", "It was deleted, or fell out of a full mailbox.");
    return;
  }
  const mail = await response.json();
  if (openedId !== id) return;
  $("nothing-selected").hidden = true;
  $("mail").hidden = false;
  $("subject").textContent = mail.subject || "(no subject)";
  $("envelope").replaceChildren(...envelope(mail));
  $("mail-tags").replaceChildren(...mail.tags.map((tag) =>
    element("span", { className: "chip", text: `${tag.name}: ${tag.value}` })));
  $("mail-tags").hidden = mail.tags.length === 0;
  $("text").textContent = mail.text ?? "";
  $("headers").replaceChildren(...Object.entries(mail.headers).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row", text: name }), element("td", { text: value }))));
  const address = `/mails/${encodeURIComponent(id)}/html`;
  // replace() keeps the frame out of the history, so that Back leaves the mail.
  $("frame").contentWindow.location.replace(mail.html === null ? "about:blank" : address);
  $("open-html").href = address;
  $("tab-html").disabled = mail.html === null;
  $("tab-text").disabled = mail.text === null;
  $("tab-headers").disabled = Object.keys(mail.headers).length === 0;
  const wanted = $(`tab-${preferredPart}`);
  choosePart(wanted.disabled ? (mail.html === null ? "text" : "html") : preferredPart);
}

function envelope(mail) {
  const lines = [["From", mail.from], ["To", mail.to.join(", ")]];
  if (mail.cc.length) lines.push(["Cc", mail.cc.join(", ")]);
  if (mail.bcc.length) lines.push(["Bcc", mail.bcc.join(", ")]);
  if (mail.reply_to.length) lines.push(["Reply to", mail.reply_to.join(", ")]);
  lines.push(["Received", fullTime.format(new Date(mail.received_at))]);
  if (mail.idempotency_key !== null) lines.push(["Key", mail.idempotency_key, "mono"]);
  if (mail.attempts > 1) lines.push(["Attempts", `asked for ${mail.attempts} times, stored once`, "repeat"]);
  return lines.flatMap(([name, value, className]) =>
    [element("dt", { text: name }), element("dd", { text: value, className })]);
}

function showNothing(title = "No mail selected", text = "") {
  openedId = null;
  $("mail").hidden = true;
  $("nothing-selected").hidden = false;
  $("nothing-title").textContent = title;
  $("nothing-text").textContent = text;
  $("keys").hidden = text !== "";
}

function choosePart(name) {
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const isChosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
  $("html-tools").hidden = name !== "html";
}

// --- selection and address ---------------------------------------------------------------------

function select(id) {
  selectedId = id;
  markSelected();
  document.body.dataset.view = id ? "mail" : "list";
  if (id) show(id);
  else showNothing();
}

function open(id) {
  const address = `/mails/${encodeURIComponent(id)}/view`;
  // On a narrow screen the mail takes the list's place, so Back has to lead to the list.
  if (narrowScreen.matches) history.pushState({ fromList: true }, "", address);
  else history.replaceState(null, "", address);
  select(id);
  if (narrowScreen.matches) reader.focus();
}

function close() {
  if (history.state?.fromList) {
    history.back();
    return;
  }
  history.replaceState(null, "", "/");
  select(null);
}

function fromAddress() {
  const match = /^\/mails\/([^/]+)\/view$/.exec(location.pathname);
  select(match ? decodeURIComponent(match[1]) : null);
}

function move(to) {
  const mail = shown[Math.max(0, Math.min(shown.length - 1, to))];
  if (!mail) return;
  if (narrowScreen.matches) {
    selectedId = mail.id;
    markSelected();
  } else {
    open(mail.id);
  }
  $(`row-${mail.id}`).scrollIntoView({ block: "nearest" });
}

// --- feed --------------------------------------------------------------------------------------

async function poll() {
  clearTimeout(polling);
  const asked = filter.value;
  try {
    const headers = lastFeed?.asked === asked ? { "If-None-Match": lastFeed.etag } : {};
    const response = await fetch(`/feed?recipient=${encodeURIComponent(asked)}`, { headers });
    if (response.status !== 304 && !response.ok) throw new Error(String(response.status));
    if (response.status === 200 && asked === filter.value) {
      const feed = await response.json();
      lastFeed = { asked, etag: response.headers.get("etag") };
      showList(feed.items);
      showState(feed);
    }
    connection("live", "Live, all mail stays here");
  } catch {
    connection("lost", "Sandbox unreachable, trying again");
  }
  clearTimeout(polling);
  if (!document.hidden) polling = setTimeout(poll, POLL_MS);
}

function connection(state, text) {
  const status = $("connection");
  if (status.dataset.state === state) return;
  status.dataset.state = state;
  status.textContent = text;
}

// --- what people do ----------------------------------------------------------------------------

filter.addEventListener("input", poll);
$("clear-filter").addEventListener("click", () => {
  filter.value = "";
  filter.focus();
  poll();
});
$("back").addEventListener("click", () => {
  close();
  list.focus();
});
$("remove-faults").addEventListener("click", async () => {
  await fetch("/faults", { method: "DELETE" });
  poll();
});
$("empty-mailbox").addEventListener("click", async ({ currentTarget: button }) => {
  if (!("armed" in button.dataset)) {
    button.dataset.armed = "";
    button.textContent = "Really delete all?";
    setTimeout(() => disarm(button), CONFIRM_MS);
    return;
  }
  disarm(button);
  await fetch("/mails", { method: "DELETE" });
  close();
  poll();
});
$("narrow").addEventListener("click", ({ currentTarget: button }) => {
  const isNarrow = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(isNarrow));
  $("part-html").toggleAttribute("data-narrow", isNarrow);
});

function disarm(button) {
  delete button.dataset.armed;
  button.textContent = "Empty mailbox";
}

for (const tab of document.querySelectorAll('[role="tab"]')) {
  tab.addEventListener("click", () => {
    preferredPart = tab.id.slice("tab-".length);
    choosePart(preferredPart);
  });
}
document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...document.querySelectorAll('[role="tab"]:not(:disabled)')];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
});

list.addEventListener("keydown", (event) => {
  const at = shown.findIndex((mail) => mail.id === selectedId);
  const targets = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1, PageDown: at + 8, PageUp: at - 8 };
  if (event.key in targets) {
    event.preventDefault();
    move(targets[event.key]);
  } else if (event.key === "Enter" && at >= 0) {
    event.preventDefault();
    open(selectedId);
    reader.focus();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && document.activeElement !== filter) {
    if (narrowScreen.matches && selectedId) close();
    list.focus();
  } else if (["ArrowDown", "Enter"].includes(event.key) && document.activeElement === filter) {
    event.preventDefault();
    list.focus();
    if (!shown.some((mail) => mail.id === selectedId)) move(0);
  }
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});
addEventListener("popstate", fromAddress);

fromAddress();
poll();
