// The mailbox page. Text of mails reaches the document through textContent only; their markup is
// shown nowhere but in the sandboxed frame, from an address of its own.

import {
  $, connection, definitions, element, fullTime, markSelected, onConfirmed, onPartChosen, polling,
  rowAfter, shortTime, showFaults, showPart, showRows, tableRow,
} from "/static/shared.js";

import { eventChip, showEvents } from "/static/events.js";

const POLL_MS = 2000;
const LONGEST_CHIP = 24;
const PAGE_TITLE = "Sandbox mailbox";

const list = $("list");
const filter = $("filter");
const reader = $("reader");
const narrowScreen = matchMedia("(max-width: 760px)");

let shown = [];
let selectedId = null;
let openedId = null;
let preferredPart = "html";
let openedMail = null;
let lastFeed = null;

function displayName(address) {
  const named = /^\s*"?([^"<]*?)"?\s*<[^>]*>\s*$/.exec(address);
  return named?.[1] || address;
}

const mails = (count) => `${count.toLocaleString()} ${count === 1 ? "mail" : "mails"}`;

// --- list --------------------------------------------------------------------------------------

function row(mail) {
  const made = element("li", { className: "row", role: "option", id: `row-${mail.id}`, "aria-selected": "false" },
    element("div", {},
      element("span", { className: "to", text: mail.to.join(", "), title: mail.to.join(", ") }),
      element("time", { text: shortTime(mail.received_at), datetime: mail.received_at })),
    element("div", {},
      element("span", { text: mail.subject || "(no subject)", title: mail.subject, dir: "auto" })),
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
  if (mail.via === "smtp") chips.unshift(element("span", { className: "chip", text: "SMTP" }));
  if (mail.last_event) chips.push(eventChip(mail.last_event));
  if (mail.attempts > 1) {
    chips.unshift(element("span", {
      className: "chip repeat", text: `×${mail.attempts}`,
      title: `Asked for ${mail.attempts} times, stored once`,
    }));
  }
  return chips;
}

function showList(items) {
  showRows(list, items, (mail) => `row-${mail.id}`, row, (made, mail) => {
    const state = `${mail.attempts} ${mail.last_event}`;
    if (made.dataset.state === state) return;
    made.dataset.state = state;
    made.querySelector(".marks").replaceChildren(...marks(mail));
  });
  shown = items;
  showSelection();
}

function showSelection() {
  markSelected(list, selectedId && `row-${selectedId}`);
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

  showFaults(feed.faults);
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
  openedMail = mail;
  $("nothing-selected").hidden = true;
  $("mail").hidden = false;
  $("subject").textContent = mail.subject || "(no subject)";
  $("envelope").replaceChildren(...envelope(mail));
  $("mail-tags").replaceChildren(...mail.tags.map((tag) =>
    element("span", { className: "chip", text: `${tag.name}: ${tag.value}` })));
  $("mail-tags").hidden = mail.tags.length === 0;
  $("text").textContent = mail.text ?? "";
  $("headers").replaceChildren(...Object.entries(mail.headers).map(tableRow));
  $("source").textContent = "";
  $("tab-events").textContent = "Events";
  showEvents(mail);
  showFrame(mail);
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
  lines.push(["Received", `${fullTime.format(new Date(mail.received_at))}${mail.via === "smtp" ? ", over SMTP" : ""}`]);
  if (mail.idempotency_key !== null) lines.push(["Key", mail.idempotency_key, "mono"]);
  if (mail.attempts > 1) lines.push(["Attempts", `asked for ${mail.attempts} times, stored once`, "repeat"]);
  return definitions(lines);
}

function showNothing(title = "No mail selected", text = "") {
  openedId = null;
  openedMail = null;
  $("mail").hidden = true;
  $("nothing-selected").hidden = false;
  $("nothing-title").textContent = title;
  $("nothing-text").textContent = text;
  $("keys").hidden = text !== "";
}

function showFrame(mail) {
  const address = `/mails/${encodeURIComponent(mail.id)}/html`;
  const scheme = "dark" in $("part-html").dataset ? "dark" : "light";
  // replace() keeps the frame out of the history, so that Back leaves the mail.
  $("frame").contentWindow.location.replace(mail.html === null ? "about:blank" : `${address}?scheme=${scheme}`);
  $("open-html").href = address;
}

function showDark(isDark) {
  $("dark").setAttribute("aria-pressed", String(isDark));
  $("part-html").toggleAttribute("data-dark", isDark);
}

function choosePart(name) {
  showPart(name);
  $("html-tools").hidden = name !== "html";
  if (name === "source" && openedMail) showSource(openedMail);
}

async function showSource(mail) {
  const response = await fetch(`/mails/${encodeURIComponent(mail.id)}/source`).catch(() => null);
  if (!response?.ok || openedId !== mail.id) return;
  $("source").textContent = await response.text();
  $("source-note").textContent = mail.via === "smtp"
    ? "As it came over SMTP."
    : "Written by the sandbox from the fields that Resend was given.";
}

// --- selection and address ---------------------------------------------------------------------

function select(id) {
  selectedId = id;
  showSelection();
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
    showSelection();
  } else {
    open(mail.id);
  }
  $(`row-${mail.id}`).scrollIntoView({ block: "nearest" });
}

// --- feed --------------------------------------------------------------------------------------

const poll = polling(async () => {
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
      if (openedMail) showEvents(openedMail);
    }
    connection("live", "Live, all mail stays here");
  } catch {
    connection("lost", "Sandbox unreachable, trying again");
  }
}, POLL_MS);

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
onConfirmed($("empty-mailbox"), async () => {
  await fetch("/mails", { method: "DELETE" });
  close();
  poll();
});
$("narrow").addEventListener("click", ({ currentTarget: button }) => {
  const isNarrow = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(isNarrow));
  $("part-html").toggleAttribute("data-narrow", isNarrow);
});

$("dark").addEventListener("click", ({ currentTarget: button }) => {
  showDark(button.getAttribute("aria-pressed") !== "true");
  if (openedMail) showFrame(openedMail);
});

onPartChosen((name) => {
  preferredPart = name;
  choosePart(name);
});

list.addEventListener("keydown", (event) => {
  const at = shown.findIndex((mail) => mail.id === selectedId);
  const next = rowAfter(event.key, at);
  if (next !== undefined) {
    event.preventDefault();
    move(next);
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

addEventListener("popstate", fromAddress);

showDark(matchMedia("(prefers-color-scheme: dark)").matches);
fromAddress();
poll();
fetch("/addresses").then((response) => response.json()).then(({ smtp }) => {
  $("no-mail-smtp").hidden = smtp === null;
  $("smtp").textContent = smtp;
}).catch(() => {});
