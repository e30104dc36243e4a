import type { Choices, TypeName } from "./choices.ts";
import { TYPES } from "./names.ts";

const EVERYTHING = {
  digest_time: "",
  digest_day: 1,
  quiet_hours_start: null,
  quiet_hours_end: null,
  quiet_hours_days: [],
  updated_at: null,
};

/** Takes as much room as most users' choices do, while theirs are not known. */
export const PLACEHOLDER: Choices = {
  items: (Object.keys(TYPES) as TypeName[]).map((notification_type) => ({
    ...EVERYTHING,
    notification_type,
    push_enabled: true,
    email_enabled: true,
    in_app_enabled: true,
    digest_frequency: "daily",
  })),
  global: {
    all_push_enabled: true,
    all_email_enabled: true,
    default_digest_frequency: "daily",
    default_digest_time: "",
    default_digest_day: 1,
    quiet_hours_start: null,
    quiet_hours_end: null,
    quiet_hours_days: [],
    updated_at: null,
  },
  settings: { timezone: null, locale: null, quiet_hours: null, pause_until: null },
};
