import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["packages/*/test/**/*.test.{ts,tsx}", "app/test/**/*.test.{ts,tsx}"],
    restoreMocks: true,
    // A process for each file costs more than the files themselves.
    isolate: false,
  },
});
