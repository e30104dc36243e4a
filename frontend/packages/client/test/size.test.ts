import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, type Rolldown } from "vite";
import { expect, test } from "vitest";

const BUDGET_BYTES = 15 * 1024;

test("the whole client stays within 15 KB, compressed", async () => {
  const built = (await build({
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      lib: {
        entry: fileURLToPath(new URL("../src/index.ts", import.meta.url)),
        formats: ["es"],
        fileName: "client",
      },
      minify: true,
    },
  })) as Rolldown.RolldownOutput[];
  const code = built.flatMap(({ output }) => output).map((chunk) => "code" in chunk && chunk.code);
  expect(code).toHaveLength(1);
  const size = gzipSync(String(code[0])).length;
  process.stdout.write(`the client takes ${size} bytes, compressed\n`);
  expect(size).toBeLessThan(BUDGET_BYTES);
});
