/** Starts and stops the real system on free ports, with data of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { openSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** The tests share their users, who get more in an hour than a person would. */
const UNLIMITED = {
  RATE_LIMIT_PUSH_PER_HOUR: "1000000",
  RATE_LIMIT_IN_APP_PER_HOUR: "1000000",
  RATE_LIMIT_EMAIL_PER_DAY: "1000000",
};

export const NOTIFY = join(import.meta.dirname, "../../.venv/bin/notify");
const START_MS = 120_000;
const STOP_MS = 30_000;

/** What a program of the system in `directory` is to know. */
export function environmentIn(directory: string): NodeJS.ProcessEnv {
  const { DATABASE_URL: _, REDIS_URL: __, ...inherited } = process.env;
  return { ...inherited, APP_ENV: "development", DATA_DIR: join(directory, "data") };
}

export class Stack {
  readonly apiPort: number;
  readonly sandboxPort: number;
  readonly directory: string;
  readonly #process: ChildProcess;

  private constructor(directory: string, ports: readonly number[], process: ChildProcess) {
    const [apiPort = 0, , sandboxPort = 0] = ports;
    this.apiPort = apiPort;
    this.sandboxPort = sandboxPort;
    this.directory = directory;
    this.#process = process;
  }

  /** Runs `notify up` and waits until it is ready; throws with its log when it does not start. */
  static async start(): Promise<Stack> {
    const directory = await mkdtemp(join(tmpdir(), "notify-e2e-"));
    const ports = await freePorts(4);
    const [API_PORT, WS_PORT, SANDBOX_PORT, SANDBOX_SMTP_PORT] = ports.map(String);
    const log = openSync(join(directory, "log"), "w");
    const running = spawn(NOTIFY, ["up"], {
      // Away from the repository, so that no `.env` of its developer is read.
      cwd: directory,
      env: {
        ...environmentIn(directory),
        API_PORT,
        WS_PORT,
        SANDBOX_PORT,
        SANDBOX_SMTP_PORT,
        ...UNLIMITED,
      },
      stdio: ["ignore", log, log],
    });
    const stack = new Stack(directory, ports, running);
    try {
      await stack.#ready();
    } catch (error) {
      running.kill("SIGKILL");
      throw error;
    }
    return stack;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get log(): string {
    return readFileSync(join(this.directory, "log"), "utf8");
  }

  /** Ends it by SIGTERM; throws when it does not end, fails, or leaves a process behind. */
  async stop(): Promise<void> {
    const ended = new Promise<number | null>((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGTERM");
    const status = await Promise.race([ended, sleep(STOP_MS, "late" as const, { ref: false })]);
    if (status === "late") throw new Error(`it did not stop within ${STOP_MS / 1000} s`);
    if (status !== 0) throw new Error(`it ended with status ${status}`);
    const left = processes().filter(({ text }) => text.includes(this.directory));
    if (left.length > 0) {
      throw new Error(`it left behind: ${left.map(({ command }) => command).join("; ")}`);
    }
    await rm(this.directory, { recursive: true });
  }

  async #ready(): Promise<void> {
    const deadline = Date.now() + START_MS;
    while (Date.now() < deadline && this.#process.exitCode === null) {
      const answer = await fetch(`http://127.0.0.1:${this.apiPort}/readyz`).catch(() => undefined);
      if (answer?.ok) return;
      await sleep(100);
    }
    throw new Error(`notify up did not become ready:\n${this.log}`);
  }
}

/** Process id of the part `name` that the supervisor `pid` runs. */
export function partOf(pid: number, name: string): number {
  const found = processes().find(
    ({ parent, command }) => parent === pid && command.includes(`notify ${name}`),
  );
  if (!found) throw new Error(`no process of ${pid} is notify ${name}`);
  return found.pid;
}

export const isRunning = (pid: number): boolean =>
  processes().some((running) => running.pid === pid);

interface Process {
  pid: number;
  parent: number;
  command: string;
  /** Command line and environment. */
  text: string;
}

function processes(): Process[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name): Process[] => {
      try {
        const read = (file: string) => readFileSync(`/proc/${name}/${file}`, "utf8");
        const command = read("cmdline").replaceAll("\0", " ").trim();
        const parent = Number(/^PPid:\s+(\d+)$/m.exec(read("status"))?.[1]);
        return [{ pid: Number(name), parent, command, text: `${command} ${read("environ")}` }];
      } catch {
        // It ended, or belongs to somebody else.
        return [];
      }
    });
}

/**
 * Ports that nobody listens on, below those that outgoing connections take, and drawn, so that
 * other tests do not come upon the same at once.
 */
async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  while (found.size < count) {
    const port = randomInt(20_000, 32_768);
    if (await isFree(port)) found.add(port);
  }
  return [...found];
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
