import { ApiError } from "@notify/client";
import { expect, test } from "vitest";
import {
  answered,
  applied,
  type Change,
  type Choices,
  differencesOf,
  RESET,
  standingOf,
  type TypeName,
  type TypePreference,
} from "../src/preferences/choices.ts";
import { PLACEHOLDER } from "../src/preferences/placeholder.ts";
import { problemOf, Saving, untold } from "../src/preferences/store.ts";

const LONG_AGO = "2026-01-01T00:00:00Z";

/** Nothing chosen but what is given for tasks. */
const choices = (ofTasks: Partial<TypePreference> = {}): Choices => ({
  ...PLACEHOLDER,
  items: PLACEHOLDER.items.map((item) =>
    item.notification_type === "task" && Object.keys(ofTasks).length > 0
      ? { ...item, updated_at: LONG_AGO, ...ofTasks }
      : item,
  ),
});

function typeIn({ items }: Choices, type: TypeName): TypePreference {
  const found = items.find(({ notification_type }) => notification_type === type);
  if (!found) throw new Error(`there is no ${type}`);
  return found;
}

test("a type that nothing was chosen for inherits", () => {
  const { global } = choices();
  expect(standingOf(typeIn(choices(), "task"), global)).toBe("inherits");
});

test("a type differs in what holds otherwise for all", () => {
  const { global, items } = choices({ digest_frequency: "weekly", quiet_hours_days: [6] });
  const task = typeIn({ ...choices(), items }, "task");
  expect(standingOf(task, global)).toBe("differs");
  expect(differencesOf(task, global)).toEqual(["digest_frequency", "quiet_hours_days"]);
});

test("a type may say the same as all, and is not taken to inherit it", () => {
  const { global } = choices();
  expect(standingOf(typeIn(choices({ digest_day: 1 }), "task"), global)).toBe("says the same");
});

test("a choice for all is inherited by the types that say nothing else", () => {
  const after = applied(choices({ digest_frequency: "weekly" }), {
    target: "global",
    body: { default_digest_frequency: "instant", default_digest_time: "07:30" },
  });
  expect(after.global.default_digest_frequency).toBe("instant");
  expect(typeIn(after, "billing")).toMatchObject({
    digest_frequency: "instant",
    digest_time: "07:30",
  });
  expect(typeIn(after, "task")).toMatchObject({
    digest_frequency: "weekly",
    digest_time: "07:30",
  });
});

test("a channel that is off for all is off for each type, and on again where nothing was chosen", () => {
  const off = applied(choices({ push_enabled: false }), {
    target: "global",
    body: { all_push_enabled: false },
  });
  expect(off.items.some(({ push_enabled }) => push_enabled)).toBe(false);
  expect(off.items.every(({ email_enabled }) => email_enabled)).toBe(true);
  const on = applied(off, { target: "global", body: { all_push_enabled: true } });
  expect(typeIn(on, "billing").push_enabled).toBe(true);
  expect(typeIn(on, "task").push_enabled).toBe(false);
});

test("a type cannot turn on what is off for all", () => {
  const off = applied(choices(), { target: "global", body: { all_email_enabled: false } });
  const after = applied(off, { target: "task", body: { email_enabled: true } });
  expect(typeIn(after, "task").email_enabled).toBe(false);
});

test("what is taken back is inherited again", () => {
  const before = choices({ digest_frequency: "never", push_enabled: false });
  const one = applied(before, { target: "task", body: { digest_frequency: null } });
  expect(typeIn(one, "task")).toMatchObject({ digest_frequency: "daily", push_enabled: false });
  expect(standingOf(typeIn(one, "task"), one.global)).toBe("differs");
  const all = applied(before, { target: "task", body: RESET });
  expect(typeIn(all, "task")).toEqual(typeIn(choices(), "task"));
});

test("settings are merged", () => {
  const after = applied(choices(), { target: "settings", body: { locale: "de" } });
  expect(after.settings).toEqual({ ...PLACEHOLDER.settings, locale: "de" });
});

test("an answer about one type replaces that type", () => {
  const told = { ...typeIn(choices(), "user"), push_enabled: false, updated_at: LONG_AGO };
  const after = answered(choices(), told);
  expect(typeIn(after, "user")).toBe(told);
  expect(typeIn(after, "task")).toEqual(typeIn(choices(), "task"));
});

const invalid = (path: string): ApiError =>
  new ApiError(422, {
    code: "validation_error",
    message: "Some fields cannot be used.",
    details: [{ path, code: "value_error", message: "is not one" }],
  });

/** A server that answers when told to: what was asked, in order, and how to answer the first. */
function server() {
  const asked: Change[] = [];
  const open: { resolve: (body: unknown) => void; reject: (error: ApiError) => void }[] = [];
  const ask = (change: Change) => {
    asked.push(change);
    return new Promise<never>((resolve, reject) => {
      open.push({ resolve: resolve as (body: unknown) => void, reject });
    });
  };
  const saving = new Saving(
    {
      updateSettings: (body) => ask({ target: "settings", body }),
      updateGlobalPreferences: (body) => ask({ target: "global", body }),
      updatePreference: (target, body) => ask({ target, body }),
    },
    choices(),
  );
  const idle = () => new Promise((resolve) => setTimeout(resolve));
  return {
    saving,
    asked,
    answer: async (body: unknown) => {
      open.shift()?.resolve(body);
      await idle();
    },
    refuse: async (error: ApiError) => {
      open.shift()?.reject(error);
      await idle();
    },
  };
}

const language = (locale: string): Change => ({ target: "settings", body: { locale } });
const stored = (locale: string) => ({ ...PLACEHOLDER.settings, locale });

test("changes are shown at once and sent one after the other", async () => {
  const { saving, asked, answer } = server();
  saving.save(language("de"));
  saving.save({ target: "task", body: { push_enabled: false } });
  expect(saving.getState()).toMatchObject({ status: "saving" });
  expect(saving.getState().choices.settings.locale).toBe("de");
  expect(typeIn(saving.getState().choices, "task").push_enabled).toBe(false);
  expect(asked).toHaveLength(1);
  await answer(stored("de"));
  expect(asked).toHaveLength(2);
  expect(saving.getState().status).toBe("saving");
  await answer({ ...typeIn(choices(), "task"), push_enabled: false, updated_at: LONG_AGO });
  expect(saving.getState().status).toBe("saved");
});

test("of changes to the same field that wait only the last is sent", async () => {
  const { saving, asked, answer } = server();
  for (const tag of ["de", "fr", "it", "ar"]) saving.save(language(tag));
  await answer(stored("de"));
  await answer(stored("ar"));
  expect(asked).toEqual([language("de"), language("ar")]);
  expect(saving.getState()).toMatchObject({ status: "saved", choices: { settings: stored("ar") } });
});

test("what is refused is taken back, told at its field, and can be tried again", async () => {
  const { saving, asked, answer, refuse } = server();
  saving.save(language("x!"));
  saving.save({ target: "settings", body: { timezone: "UTC" } });
  await refuse(invalid("locale"));
  await answer({ ...PLACEHOLDER.settings, timezone: "UTC" });
  const { choices, status, refusals } = saving.getState();
  expect(choices.settings).toMatchObject({ locale: null, timezone: "UTC" });
  expect(status).toBe("failed");
  expect(problemOf(refusals, "settings", "locale")?.message).toBe("is not one");
  expect(problemOf(refusals, "global", "locale")).toBeUndefined();
  expect(untold(refusals)).toEqual([]);
  saving.retry();
  expect(asked.at(-1)).toEqual(language("x!"));
  expect(saving.getState().refusals).toEqual([]);
});

test("what no field tells is told for the page", async () => {
  const { saving, refuse } = server();
  saving.save(language("de"));
  await refuse(new ApiError(0, { code: "network", message: "The server could not be reached." }));
  expect(untold(saving.getState().refusals)).toHaveLength(1);
  saving.save({ target: "settings", body: { quiet_hours: {} } });
  await refuse(invalid("quiet_hours.1.0"));
  expect(problemOf(saving.getState().refusals, "settings", "quiet_hours.1")).toBeDefined();
  expect(untold(saving.getState().refusals)).toHaveLength(1);
  saving.dismiss();
  expect(saving.getState().refusals).toEqual([]);
});
