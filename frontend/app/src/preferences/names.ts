/** What the server's words are called on the page. */

import type { Frequency, TypeName } from "./choices.ts";

export const TYPES: Readonly<Record<TypeName, readonly [name: string, about: string]>> = {
  system: ["System", "Maintenance, outages, news of the platform"],
  user: ["People", "Mentions, messages, invitations"],
  task: ["Tasks", "What is assigned to you, due or done"],
  security: ["Security", "Sign-ins, passwords, alarms"],
  billing: ["Billing", "Invoices, payments, plans"],
  workflow: ["Workflow", "Runs, approvals, failures"],
  agent: ["Agents", "What agents ask or report"],
};

export const FREQUENCIES: readonly (readonly [Frequency, string])[] = [
  ["instant", "At once"],
  ["daily", "Daily digest"],
  ["weekly", "Weekly digest"],
  ["never", "Never"],
];

/** In the middle of a text. */
export const frequencyName = (frequency: Frequency): string =>
  frequency === "instant" ? "at once" : frequency;

/** The languages that the server writes in; others fall back to the nearest of them. */
export const LANGUAGES: readonly (readonly [tag: string, name: string])[] = [
  ["en", "English"],
  ["de", "Deutsch"],
  ["ar", "العربية"],
];
