/** Runs the browser tests against the real system, which it starts and stops. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Stack } from "./stack.ts";

const TESTS = join(import.meta.dirname, "tests");
/** What uses none of the system's users, and so can run while others wait for it. */
const BESIDE: readonly string[] = ["letters.test.ts", "mailbox.test.ts"];

const stack = await Stack.start();
let failed = true;
try {
  failed = !(await passes());
  if (failed) process.stderr.write(`\nThe system's log:\n${stack.log}\n`);
} finally {
  await stack.stop();
}
process.exitCode = failed ? 1 : 0;

/** Runs the test files whose names contain the first argument, or all. */
async function passes(): Promise<boolean> {
  const chosen = process.argv[2] ?? "";
  const names = readdirSync(TESTS)
    .filter((name) => name.endsWith(".test.ts") && name.includes(chosen))
    .sort();
  const lanes = [
    names.filter((name) => !BESIDE.includes(name)),
    names.filter((name) => BESIDE.includes(name)),
  ].filter((lane) => lane.length > 0);
  const results = await Promise.all(lanes.map(run));
  for (const { output } of results) process.stdout.write(output);
  return results.length > 0 && results.every(({ passed }) => passed);
}

/** Runs test files one after another, in one process with one browser. */
async function run(names: readonly string[]): Promise<{ passed: boolean; output: string }> {
  const options = ["--test", "--test-isolation=none", "--test-reporter=spec"];
  const files = names.map((name) => join(TESTS, name));
  const lane = spawn(process.execPath, [...options, "--test-timeout=120000", ...files], {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      E2E_URL: `http://127.0.0.1:${stack.apiPort}`,
      E2E_SANDBOX_URL: `http://127.0.0.1:${stack.sandboxPort}`,
      E2E_DIRECTORY: stack.directory,
      E2E_PID: String(stack.pid),
    },
  });
  const [output, [status]] = await Promise.all([text(lane.stdout), once(lane, "exit")]);
  return { passed: status === 0, output };
}
