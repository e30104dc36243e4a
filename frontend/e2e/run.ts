/** Runs the browser tests against the real system, which it starts and stops. */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { Stack } from "./stack.ts";

const TESTS = join(import.meta.dirname, "tests");

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
  process.env["E2E_URL"] = `http://127.0.0.1:${stack.apiPort}`;
  process.env["E2E_SANDBOX_URL"] = `http://127.0.0.1:${stack.sandboxPort}`;
  process.env["E2E_DIRECTORY"] = stack.directory;
  process.env["E2E_PID"] = String(stack.pid);
  const chosen = process.argv[2] ?? "";
  const files = readdirSync(TESTS)
    .filter((name) => name.endsWith(".test.ts") && name.includes(chosen))
    .map((name) => join(TESTS, name));
  let passed = files.length > 0;
  const results = run({ files, concurrency: false, timeout: 120_000 });
  results.on("test:fail", () => {
    passed = false;
  });
  for await (const text of results.compose(new spec())) process.stdout.write(String(text));
  return passed;
}
