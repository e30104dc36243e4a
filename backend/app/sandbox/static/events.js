// What became of a mail: the webhooks that told of it, and buttons to make something happen.

import { $, element, fullTime, shortTime } from "/static/shared.js";

const NAMES = {
  sent: "Sent",
  delivered: "Delivered",
  delivery_delayed: "Delivery delayed",
  opened: "Opened",
  clicked: "Clicked",
  bounced: "Bounced",
  complained: "Complained",
  suppressed: "Suppressed",
  failed: "Failed",
};
const TONES = {
  delivered: "good", opened: "good", clicked: "good",
  bounced: "bad", complained: "bad", suppressed: "bad", failed: "bad", delivery_delayed: "warn",
};
const STATES = {
  waiting: "on its way",
  accepted: "taken by the API",
  refused: "given up",
  lost: "lost on purpose",
  dropped: "dropped, too many were waiting",
};

let shownMail = null;
let shownVersion = null;

/** A chip that says what happened to a mail last. */
export const eventChip = (type) =>
  element("span", { className: `chip tone-${TONES[type] ?? "plain"}`, text: NAMES[type] ?? type });

/** Show what was told of a mail, and keep what is unfolded unfolded. */
export async function showEvents(mail) {
  if (shownMail?.id !== mail.id) {
    shownMail = mail;
    shownVersion = null;
    $("events-list").replaceChildren();
    $("events-outcome").textContent = "";
    $("events-note").textContent = "";
    $("event-buttons").hidden = true;
  }
  const response = await fetch(`/mails/${encodeURIComponent(mail.id)}/events`).catch(() => null);
  if (!response?.ok || shownMail?.id !== mail.id) return;
  const text = await response.text();
  if (text === shownVersion) return;
  shownVersion = text;
  const told = JSON.parse(text);
  const isTold = mail.via === "resend" && told.address !== null;
  $("event-buttons").hidden = !isTold;
  $("events-note").textContent = note(mail, told, isTold);
  $("tab-events").textContent = told.items.length ? `Events (${told.items.length})` : "Events";
  const unfolded = new Set([...document.querySelectorAll("#events-list details[open]")].map((each) => each.dataset.of));
  $("events-list").replaceChildren(...told.items.map((item, at) => event(item, at, unfolded)));
}

function note(mail, told, isTold) {
  if (mail.via === "smtp") return "This mail came over SMTP, where nobody tells what becomes of it.";
  if (!isTold) return "Webhooks are switched off, so nobody is told what becomes of mails.";
  if (told.items.length) return `Each is posted to ${told.address}, signed, until it is taken.`;
  return "Nothing is known of this mail; the sandbox forgets events when it starts anew.";
}

function event(item, at, unfolded) {
  const key = `${item.id}/${at}`;
  const body = JSON.parse(item.body);
  const repeat = element("button", {
    type: "button", className: "quiet", text: "Repeat",
    title: "Post it again, under the same id", "aria-label": `Repeat ${NAMES[item.type]}`,
  });
  repeat.addEventListener("click", () => post(`/webhooks/${encodeURIComponent(item.id)}/repeat`, null, `“${NAMES[item.type]}” is on its way again.`));
  const details = element("details", { "data-of": key },
    element("summary", { text: `${fate(item)}, ${plural(item.attempts.length, "attempt")}` }),
    ...item.attempts.map((attempt) => element("p", {
      className: "attempt",
      text: `${fullTime.format(new Date(attempt.at))}: ${attempt.status ?? attempt.error}`,
    })),
    element("p", { className: "attempt", text: `svix-id: ${item.id}` }),
    element("pre", { className: "code", text: JSON.stringify(body, null, 2) }),
  );
  if (unfolded.has(key)) details.open = true;
  return element("li", { className: `event tone-${TONES[item.type] ?? "plain"}` },
    element("div", { className: "event-head" },
      element("strong", { text: NAMES[item.type] }),
      element("span", { className: "what", text: what(body.data) }),
      element("time", { text: shortTime(item.created_at), datetime: item.created_at }),
      repeat),
    details);
}

const fate = (item) => {
  const last = item.attempts.at(-1);
  if (item.state === "waiting" && last) return `answered ${last.status ?? last.error}, will be repeated`;
  return `${STATES[item.state]}${last?.status ? ` (${last.status})` : ""}`;
};

const what = (data) =>
  data.bounce ? `${data.bounce.type}, ${data.bounce.subType}` : (data.click?.link ?? "");

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

async function post(address, body, done) {
  const response = await fetch(address, {
    method: "POST",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  }).catch(() => null);
  const refusal = response && !response.ok && (await response.json().catch(() => null));
  $("events-outcome").textContent = response?.ok
    ? done : (refusal?.error?.message ?? "The sandbox could not be reached.");
  if (shownMail) await showEvents(shownMail);
}

for (const button of document.querySelectorAll("#event-buttons button")) {
  button.addEventListener("click", () => {
    const { event: type, bounce } = button.dataset;
    post(`/mails/${encodeURIComponent(shownMail.id)}/events`, { type, ...(bounce && { bounce }) }, `“${NAMES[type]}” is on its way.`);
  });
}
