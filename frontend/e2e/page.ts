/** What the tests do on the page and beside it. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, afterEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Locator,
  type Page,
} from "playwright-core";
import { environmentIn, NOTIFY } from "./stack.ts";

const required = (name: string): string => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run the tests by \`npm run e2e\``);
  return value;
};

export const URL_OF_PAGE = required("E2E_URL");
export const URL_OF_SANDBOX = required("E2E_SANDBOX_URL");
export const SUPERVISOR = Number(required("E2E_PID"));
const DIRECTORY = required("E2E_DIRECTORY");

/** Runs a command of `notify` on the running system. */
export const notify = (...command: string[]): Promise<unknown> =>
  promisify(execFile)(NOTIFY, command, { cwd: DIRECTORY, env: environmentIn(DIRECTORY) });

export const USERS = {
  ada: { id: "0197a000-0000-7000-8000-000000000001", name: "Ada Lovelace" },
  emmy: { id: "0197a000-0000-7000-8000-000000000002", name: "Emmy Noether" },
  muhammad: { id: "0197a000-0000-7000-8000-000000000003", name: "Muhammad al-Khwarizmi" },
} as const;

export type User = (typeof USERS)[keyof typeof USERS];

/**
 * What Playwright turns off, of which one list alone counts, and what costs much and shows nothing:
 * the address bar's pages, two for each window, and processes that are started ahead of their use.
 */
const FEATURES_OFF = [
  "AimEnabled",
  "AvoidCorsURLLoaderRestartOnRedirect",
  "AvoidUnnecessaryBeforeUnloadCheckSync",
  "DestroyProfileOnBrowserClose",
  "HttpsFirstBalancedModeAutoEnable",
  "HttpsUpgrades",
  "LensOverlay",
  "MediaRouter",
  "NetworkTimeServiceQuerying",
  "OptimizationHints",
  "PaintHolding",
  "PreconnectToSearch",
  "ThirdPartyStoragePartitioning",
  "SpareRendererForSitePerProcess",
  "WebUIOmniboxAimPopup",
  "WebUIOmniboxPopup",
];

const launch = (): Promise<Browser> =>
  chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--in-process-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      `--disable-features=${FEATURES_OFF.join()}`,
    ],
  });

let browser: Promise<Browser> | undefined;
const contexts: BrowserContext[] = [];

// Pages that stay open go on drawing what the later tests send to their users.
afterEach(() => Promise.all(contexts.splice(0).map((context) => context.close())));
after(async () => (await browser)?.close());

/** A page in a context of its own, and everything it complained about. */
export const open = async (options: BrowserContextOptions = {}): Promise<Opened> =>
  openIn(await newContext(options));

export interface Opened {
  page: Page;
  complaints: string[];
}

/** For pages that move what they show. */
export const MOVING = { reducedMotion: "no-preference" } as const;

/** What the tabs of one browser have in common, until the test ends. */
export async function newContext(options: BrowserContextOptions = {}): Promise<BrowserContext> {
  browser ??= launch();
  const context = await (await browser).newContext({
    viewport: { width: 1280, height: 800 },
    // Without a graphics card each step of a motion is dear; `MOVING` is for those it matters to.
    reducedMotion: "reduce",
    ...options,
  });
  contexts.push(context);
  return context;
}

/** One more tab. */
export async function openIn(context: BrowserContext): Promise<Opened> {
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  return { page, complaints };
}

export async function signIn(page: Page, user: User): Promise<void> {
  await page.goto(URL_OF_PAGE);
  await page.getByRole("button", { name: user.name }).click();
  await live(page);
}

export const live = (page: Page): Promise<void> =>
  page.getByRole("status").getByText("Live", { exact: true }).waitFor();

export const titled = (page: Page, title: string): Locator =>
  page.getByRole("article", { name: title });

/** Waits until `page` shows it as read, or as unread. */
export const waitForRead = (page: Page, title: string, isRead = true): Promise<void> =>
  page.getByRole("article", { name: isRead ? title : `Unread: ${title}`, exact: true }).waitFor();

/** Waits until `holds` does; fails after `limit` milliseconds, saying what was waited for. */
export async function until(
  what: string | (() => string),
  holds: () => boolean | Promise<boolean>,
  limit = 20_000,
): Promise<void> {
  const deadline = Date.now() + limit;
  while (!(await holds())) {
    assert.ok(
      Date.now() < deadline,
      `in vain waited until ${typeof what === "string" ? what : what()}`,
    );
    await sleep(20);
  }
}

/** The count that the bell tells. */
export async function unreadCount(page: Page): Promise<number> {
  const bell = page.getByRole("button", { name: /^Notifications, \d+ unread$/ });
  return Number(/\d+/.exec((await bell.getAttribute("aria-label")) ?? "")?.[0]);
}

export const waitForCount = (page: Page, count: number): Promise<void> =>
  page.getByRole("button", { name: `Notifications, ${count} unread`, exact: true }).waitFor();

/** Sends as a service would, without the page; answers the id. */
export async function send(user: User, title: string, data: object = {}): Promise<string> {
  const response = await fetch(`${URL_OF_PAGE}/demo/notifications`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user_id: user.id, type: "task", title, body: `About *${title}*`, data }),
  });
  const answer = await response.text();
  assert.equal(response.status, 202, answer);
  return (JSON.parse(answer) as { id: string }).id;
}

/** Sends through the form, and returns the id the page shows. */
export async function sendByForm(
  page: Page,
  { title, email = false }: { title: string; email?: boolean },
): Promise<string> {
  await page.getByRole("textbox", { name: "Title" }).fill(title);
  await page.getByRole("textbox", { name: "Body" }).fill(`About **${title}**`);
  await page.getByRole("checkbox", { name: "Email it now" }).setChecked(email);
  await page.getByRole("button", { name: "Send", exact: true }).click();
  return (await page.getByTestId("receipt").locator("code").textContent()) ?? "";
}
