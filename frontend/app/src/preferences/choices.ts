/** What a user chose, what follows from it, and what a change makes of it. Pure. */

import type {
  Preferences,
  UpdateGlobalPreferences,
  UpdatePreference,
  UpdateSettings,
  UserSettings,
} from "@notify/client";

export type TypePreference = Preferences["items"][number];
export type GlobalPreferences = Preferences["global"];
export type TypeName = TypePreference["notification_type"];
export type Frequency = TypePreference["digest_frequency"];

/** Everything that the page shows. */
export interface Choices extends Preferences {
  settings: UserSettings;
}

/** Some fields of one thing that is stored, as they are sent. */
export type Change =
  | { target: "global"; body: UpdateGlobalPreferences }
  | { target: "settings"; body: UpdateSettings }
  | { target: TypeName; body: UpdatePreference };

/** What comes back from the server for a change. */
export type Answer = Partial<Choices> | TypePreference;

/** Each field of a type, and what it is called where it holds for all. */
const INHERITED = {
  push_enabled: "all_push_enabled",
  email_enabled: "all_email_enabled",
  digest_frequency: "default_digest_frequency",
  digest_time: "default_digest_time",
  digest_day: "default_digest_day",
  quiet_hours_start: "quiet_hours_start",
  quiet_hours_end: "quiet_hours_end",
  quiet_hours_days: "quiet_hours_days",
} as const satisfies Partial<Record<keyof TypePreference, keyof GlobalPreferences>>;

export type Field = keyof typeof INHERITED;
const FIELDS = Object.keys(INHERITED) as Field[];

/** Takes back all that was chosen for a type. */
export const RESET = Object.fromEntries(FIELDS.map((field) => [field, null])) as UpdatePreference;

const isAlike = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

/** Which of a type's fields hold other than for all. */
export const differencesOf = (item: TypePreference, all: GlobalPreferences): Field[] =>
  FIELDS.filter((field) => !isAlike(item[field], all[INHERITED[field]]));

/**
 * How a type stands to what holds for all: it has no choices of its own, some of them make a
 * difference, or at present they say the same.
 */
export function standingOf(
  item: TypePreference,
  all: GlobalPreferences,
): "inherits" | "differs" | "says the same" {
  if (item.updated_at === null) return "inherits";
  return differencesOf(item, all).length > 0 ? "differs" : "says the same";
}

/** What to show while a change is on its way: the same as the server will answer, as far as known. */
export function applied(choices: Choices, change: Change): Choices {
  if (change.target === "settings") {
    return { ...choices, settings: { ...choices.settings, ...change.body } as UserSettings };
  }
  if (change.target === "global") return appliedToAll(choices, change.body);
  const { target, body } = change;
  return {
    ...choices,
    items: choices.items.map((item) =>
      item.notification_type === target ? appliedToType(item, body, choices.global) : item,
    ),
  };
}

function appliedToType(
  item: TypePreference,
  body: UpdatePreference,
  all: GlobalPreferences,
): TypePreference {
  const next: Record<string, unknown> = { ...item };
  for (const field of FIELDS) {
    const chosen = body[field];
    if (chosen !== undefined) next[field] = chosen ?? all[INHERITED[field]];
  }
  const isReset = FIELDS.every((field) => body[field] === null);
  // When is not shown, only whether.
  next["updated_at"] = isReset ? null : (item.updated_at ?? new Date(0).toISOString());
  return withVetoes(next as TypePreference, all);
}

function appliedToAll(choices: Choices, body: UpdateGlobalPreferences): Choices {
  const before = choices.global;
  const all = { ...before } as Record<string, unknown>;
  // What a default is, only the server knows: what is taken back changes once it answers.
  for (const [field, chosen] of Object.entries(body)) {
    if (chosen !== null || before[field as keyof GlobalPreferences] === null) all[field] = chosen;
  }
  const after = all as unknown as GlobalPreferences;
  const items = choices.items.map((item) => {
    const next: Record<string, unknown> = { ...item };
    for (const field of FIELDS) {
      const name = INHERITED[field];
      // What a type says of a channel that was off for all is known once the server answers.
      if (isChannel(field) && item.updated_at !== null) continue;
      if (isAlike(item[field], before[name])) next[field] = after[name];
    }
    return withVetoes(next as TypePreference, after);
  });
  return { ...choices, global: after, items };
}

const isChannel = (field: Field) => field === "push_enabled" || field === "email_enabled";

/** A channel that is off for all is off for every type. */
const withVetoes = (item: TypePreference, all: GlobalPreferences): TypePreference => ({
  ...item,
  push_enabled: item.push_enabled && all.all_push_enabled,
  email_enabled: item.email_enabled && all.all_email_enabled,
});

/** What is known once the server has answered a change. */
export function answered(choices: Choices, answer: Answer): Choices {
  if (!("notification_type" in answer)) return { ...choices, ...answer };
  return {
    ...choices,
    items: choices.items.map((item) =>
      item.notification_type === answer.notification_type ? answer : item,
    ),
  };
}

/** Whether `next` says all that `change` does, so that it need not be sent any more. */
export const replaces = (next: Change, change: Change): boolean =>
  next.target === change.target && Object.keys(change.body).every((field) => field in next.body);
