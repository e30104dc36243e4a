import { defineConfig } from "vite";

/** The service worker: one file beside the page, whose address must stay the same. */
export default defineConfig({
  root: import.meta.dirname,
  publicDir: false,
  build: {
    emptyOutDir: false,
    rolldownOptions: {
      input: "worker/main.ts",
      output: { format: "iife", entryFileNames: "sw.js" },
    },
  },
});
