// The devices page: what arrived on the sandbox's browsers and phones.

import {
  $, connection, definitions, element, fullTime, markSelected, onConfirmed, onPartChosen, polling,
  rowAfter, shortTime, showFaults, showPart, showRows, tableRow,
} from "/static/shared.js";

const POLL_MS = 2000;
const PAGE_TITLE = "Sandbox devices";
const PLATFORMS = { web: "Browser", android: "Android", ios: "iOS" };

const list = $("list");
const filter = $("filter");
const reader = $("reader");
const narrowScreen = matchMedia("(max-width: 760px)");

let shown = [];
let selected = null; // "push/ID" or "fcm/ID"
let opened = null;
let lastFeed = null;

const pathOf = (item) => `${item.service}/${item.id}`;
const rowId = (item) => `row-${item.id}`;
const pushes = (count) => `${count.toLocaleString()} ${count === 1 ? "push" : "pushes"}`;

// --- list --------------------------------------------------------------------------------------

function row(item) {
  const made = element("li", { className: "row", role: "option", id: rowId(item), "aria-selected": "false" },
    element("div", {},
      element("span", { className: "to", text: item.title || "(silent)", title: item.title }),
      element("time", { text: shortTime(item.at), datetime: item.at })),
    element("div", {}, element("span", { className: "what", text: item.text, title: item.text })),
    element("div", {},
      element("span", { className: "from", text: `to ${item.device_name} (${PLATFORMS[item.platform]})` }),
      element("span", { className: "marks" }, element("span", { className: "chip state" }))),
  );
  made.addEventListener("click", () => open(item));
  return made;
}

function showList(items) {
  showRows(list, items, rowId, row, (made, item) => {
    made.dataset.state = item.state;
    made.querySelector(".state").textContent = item.state;
  });
  shown = items;
  showSelection();
}

function showSelection() {
  markSelected(list, selected && `row-${selected.split("/")[1]}`);
}

function showState(feed) {
  const wanted = filter.value.trim();
  const none = feed.items.length === 0;
  $("no-message").hidden = !none;
  $("no-message-title").textContent = wanted ? `Nothing for “${wanted}”` : "No push yet";
  $("no-message-text").textContent = wanted
    ? "The filter looks for this text in the names of devices."
    : "Pushes to the sandbox's browsers and phones land here, decrypted, as they arrive.";
  $("clear-filter").hidden = !wanted;
  $("empty").hidden = none && !wanted;
  $("count").textContent = feed.total > feed.items.length
    ? `Newest ${feed.items.length} of ${pushes(feed.total)}`
    : pushes(feed.total);
  showFaults(feed.faults);
  showDevices(feed);
  document.title = feed.total ? `(${feed.total}) ${PAGE_TITLE}` : PAGE_TITLE;
}

function showDevices(feed) {
  $("devices").replaceChildren(...feed.devices.map((device) => {
    const button = element("button", { type: "button" },
      element("span", { className: "name", text: device.name }),
      element("span", { className: "kind", text: PLATFORMS[device.platform] }),
      element("span", { className: "address", text: device.address, title: device.address }));
    button.addEventListener("click", () => {
      filter.value = device.name;
      poll();
    });
    return element("li", {}, button);
  }));
  if (opened === null) showNothing(...summary(feed));
}

function summary(feed) {
  const all = feed.device_count;
  if (all === 0) return ["No devices", "PUT /push/browsers/NAME makes a browser, PUT /fcm/phones/NAME a phone."];
  const title = all === 1 ? "1 device" : `${all.toLocaleString()} devices`;
  return [title, all > feed.devices.length ? `The newest ${feed.devices.length} of them:` : ""];
}

// --- reader ------------------------------------------------------------------------------------

async function show(path) {
  if (opened === path) return;
  opened = path;
  const [service, id] = path.split("/");
  const response = await fetch(`/${service}/messages/${encodeURIComponent(id)}`).catch(() => null);
  if (opened !== path) return;
  if (!response?.ok) {
    showNothing("This push is not here", "It was deleted, or is too old.");
    return;
  }
  const message = await response.json();
  if (opened !== path) return;
  const notification = service === "push" ? webNotification(message.payload) : phoneNotification(message.message);
  $("nothing-selected").hidden = true;
  $("message").hidden = false;
  reader.querySelector(".shown").classList.toggle("silent", !notification.title);
  $("title").textContent = notification.title || "Nothing to be seen";
  $("body").textContent = notification.body;
  $("buttons").replaceChildren(...notification.actions.map((text) => element("span", { className: "chip", text })));
  $("buttons").hidden = notification.actions.length === 0;
  $("envelope").replaceChildren(...definitions(envelope(service, message)));
  const payload = service === "push" ? message.payload : message.message;
  $("payload").textContent = typeof payload === "string" ? payload : JSON.stringify(payload, null, 2);
  const headers = service === "push" ? webHeaders(message) : phoneHeaders(message);
  $("headers").replaceChildren(...headers.map(tableRow));
}

const objectOf = (value) => (value !== null && typeof value === "object" ? value : {});
const textOf = (value) => (typeof value === "string" ? value : "");
const actionTitles = (actions) => (Array.isArray(actions) ? actions : [])
  .map((action) => textOf(objectOf(action).title) || textOf(objectOf(action).label) || textOf(objectOf(action).action))
  .filter(Boolean);

function webNotification(payload) {
  if (typeof payload === "string") return { title: payload, body: "", actions: [] };
  const notification = objectOf(objectOf(payload).notification);
  return {
    title: textOf(notification.title),
    body: textOf(notification.body),
    actions: actionTitles(notification.actions ?? objectOf(notification.data).actions),
  };
}

function phoneNotification(message) {
  const notification = { ...objectOf(message.notification), ...objectOf(objectOf(message.android).notification) };
  return { title: textOf(notification.title), body: textOf(notification.body), actions: [] };
}

function envelope(service, message) {
  const lines = [
    ["To", message.device_name],
    ["Arrived", fullTime.format(new Date(message.at))],
    ["State", message.state],
  ];
  if (service === "push") lines.push(["Size", `${message.size.toLocaleString()} bytes, encrypted`]);
  else lines.push(["Name", message.name, "mono"]);
  return lines;
}

function webHeaders(message) {
  return [
    ...Object.entries(message.headers).filter(([, value]) => value !== null),
    ["VAPID key", message.vapid.key],
    ...Object.entries(message.vapid.claims).map(([name, value]) => [`VAPID ${name}`, String(value)]),
    ["Endpoint", message.endpoint],
    ["Expires", fullTime.format(new Date(message.expires_at))],
  ];
}

function phoneHeaders(message) {
  const android = objectOf(message.message.android);
  return [
    ["Token", message.device],
    ["Validated only", message.validate_only ? "yes" : "no"],
    ...["priority", "ttl", "collapse_key"].filter((name) => name in android).map((name) => [`Android ${name}`, String(android[name])]),
    ...Object.entries(objectOf(objectOf(message.message.apns).headers)),
  ];
}

function showNothing(title = "", text = "") {
  $("message").hidden = true;
  $("nothing-selected").hidden = false;
  $("nothing-title").textContent = title;
  $("nothing-text").textContent = text;
}

// --- selection and address ---------------------------------------------------------------------

function select(path) {
  selected = path;
  showSelection();
  document.body.dataset.view = path ? "mail" : "list";
  if (path) show(path);
  else {
    opened = null;
    showNothing(...(lastFeed ? summary(lastFeed.feed) : []));
  }
}

function open(item) {
  const address = `/devices/${pathOf(item)}`;
  // On a narrow screen the push takes the list's place, so Back has to lead to the list.
  if (narrowScreen.matches) history.pushState({ fromList: true }, "", address);
  else history.replaceState(null, "", address);
  select(pathOf(item));
  if (narrowScreen.matches) reader.focus();
}

function close() {
  if (history.state?.fromList) {
    history.back();
    return;
  }
  history.replaceState(null, "", "/devices");
  select(null);
}

function fromAddress() {
  const match = /^\/devices\/((?:push|fcm)\/[^/]+)$/.exec(location.pathname);
  select(match ? decodeURIComponent(match[1]) : null);
}

function move(to) {
  const item = shown[Math.max(0, Math.min(shown.length - 1, to))];
  if (!item) return;
  if (narrowScreen.matches) {
    selected = pathOf(item);
    showSelection();
  } else {
    open(item);
  }
  $(rowId(item)).scrollIntoView({ block: "nearest" });
}

// --- feed --------------------------------------------------------------------------------------

const poll = polling(async () => {
  const asked = filter.value;
  try {
    const headers = lastFeed?.asked === asked ? { "If-None-Match": lastFeed.etag } : {};
    const response = await fetch(`/devices/feed?device=${encodeURIComponent(asked)}`, { headers });
    if (response.status !== 304 && !response.ok) throw new Error(String(response.status));
    if (response.status === 200 && asked === filter.value) {
      const feed = await response.json();
      lastFeed = { asked, etag: response.headers.get("etag"), feed };
      showList(feed.items);
      showState(feed);
    }
    connection("live", "Live, no push leaves this machine");
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
onConfirmed($("empty"), async () => {
  await Promise.all(["/push/messages", "/fcm/messages"].map((path) => fetch(path, { method: "DELETE" })));
  close();
  poll();
});
onPartChosen(showPart);

list.addEventListener("keydown", (event) => {
  const at = shown.findIndex((item) => pathOf(item) === selected);
  const next = rowAfter(event.key, at);
  if (next !== undefined) {
    event.preventDefault();
    move(next);
  } else if (event.key === "Enter" && at >= 0) {
    event.preventDefault();
    open(shown[at]);
    reader.focus();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && document.activeElement !== filter) {
    if (selected) close();
    list.focus();
  } else if (["ArrowDown", "Enter"].includes(event.key) && document.activeElement === filter) {
    event.preventDefault();
    list.focus();
    if (!shown.some((item) => pathOf(item) === selected)) move(0);
  }
});

addEventListener("popstate", fromAddress);

showPart("payload");
fromAddress();
poll();
