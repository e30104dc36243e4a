import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const api = `http://127.0.0.1:${process.env["API_PORT"] ?? "8000"}`;

export default defineConfig({
  root: import.meta.dirname,
  plugins: [react()],
  build: {
    // Every asset is a file of its own, since the policy of the server allows none inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/api": { target: api, ws: true },
      "/demo": { target: api },
      "/sw.js": { target: api },
    },
  },
});
