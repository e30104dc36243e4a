import { expect, test } from "vitest";
import type { Notification } from "../src/api.ts";
import { createNotifications, type Notifications } from "../src/client.ts";
import { generator, ModelServer } from "./model-server.ts";
import { Service } from "./service.ts";
import { FakeBrowser, FakeWorld, settled, tokenFor } from "./support.ts";

const SEEDS = 200;
const STEPS = 60;

interface Session {
  world: FakeWorld;
  client: Notifications;
  isAway: boolean;
  /** Position of the inbox when it first showed it. */
  from: number | undefined;
  arrived: Notification[];
}

/** A user with three tabs in one browser and one in another, all of which change things. */
class Sessions {
  readonly model: ModelServer;
  readonly open: Session[] = [];
  readonly #random: () => number;
  readonly #service: Service;
  readonly #browser = new FakeBrowser();
  readonly #other = new FakeBrowser();

  constructor(seed: number) {
    this.#random = generator(seed);
    this.model = new ModelServer(this.#random);
    this.#service = new Service(this.model);
    this.#service.mishap = () => {
      const chance = this.#random();
      if (chance < 0.85) return "none";
      return chance < 0.9 ? "refused" : chance < 0.95 ? "lost" : "answer lost";
    };
    this.#service.pause = async () => {
      const turns = this.#random() * 8;
      for (let turn = 0; turn < turns; turn++) {
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    for (let count = 0; count < 8; count++) this.model.create();
    for (const browser of [this.#browser, this.#browser, this.#browser, this.#other]) {
      this.#join(browser);
    }
  }

  /** One thing happens somewhere. */
  step(): void {
    const random = this.#random;
    const session = this.open[Math.floor(random() * this.open.length)];
    if (!session) return;
    const { world, client } = session;
    const { items } = client.getState();
    const id = items[Math.floor(random() * items.length)]?.id ?? "none";
    const steps: [number, () => void][] = [
      [0.3, () => this.model.change()],
      [0.45, () => void client.markRead(id)],
      [0.55, () => void client.markUnread(id)],
      [0.63, () => void client.remove(id)],
      [0.67, () => void client.markAllRead()],
      [0.7, () => void client.markAllRead({ type: "task" })],
      [0.76, () => void client.loadMore()],
      [0.8, () => void client.show(random() < 0.5 ? "unread" : "all")],
      [0.86, () => world.open.at(-1)?.ends(1006)],
      [0.9, () => world.wakes()],
      [0.96, () => this.#comeOrGo(session)],
      [1, () => this.#replace(session)],
    ];
    const chance = random();
    steps.find(([upTo]) => chance < upTo)?.[1]();
  }

  /** Some time passes for all. */
  async pass(ms: number): Promise<void> {
    for (const { world } of this.open) await world.passes(ms);
  }

  /** Nothing goes wrong any more, everybody is there, and time passes. */
  async calm(): Promise<void> {
    this.#service.mishap = () => "none";
    this.#service.pause = async () => undefined;
    for (const session of this.open) if (session.isAway) this.#comeOrGo(session);
    for (let second = 0; second < 80; second += 4) await this.pass(4_000);
  }

  /** How many sockets each browser has open. */
  get sockets(): number[] {
    const isOfOther = (index: number) => index === 3;
    const counts = [0, 0];
    for (const [index, { world }] of this.open.entries()) {
      const browser = isOfOther(index) ? 1 : 0;
      counts[browser] = (counts[browser] ?? 0) + world.open.length;
    }
    return counts;
  }

  #join(browser: FakeBrowser, at = this.open.length): void {
    const world = new FakeWorld(browser);
    this.#service.serve(world);
    const token = async () => tokenFor("u1");
    const client = createNotifications({ baseUrl: "https://host", token, environment: world });
    const session: Session = { world, client, isAway: false, from: undefined, arrived: [] };
    this.open[at] = session;
    client.subscribe(() => {
      session.from ??= client.getState().seq;
    });
    client.onArrival((item) => session.arrived.push(item));
    client.start();
  }

  #comeOrGo(session: Session): void {
    session.isAway = !session.isAway;
    session.world.isPresent(!session.isAway);
  }

  /** A tab crashes and is opened again. */
  #replace(session: Session): void {
    const at = this.open.indexOf(session);
    const browser = at === 3 ? this.#other : this.#browser;
    browser.crash(session.world);
    this.#join(browser, at);
  }
}

test("whatever the sessions of a user do, all come to show what the server holds", async () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const sessions = new Sessions(seed);
    await settled();
    for (let step = 0; step < STEPS; step++) {
      sessions.step();
      if (step % 5 === 0) await sessions.pass(200);
    }
    await sessions.calm();
    const { model } = sessions;
    for (const [index, { client, from = 0, arrived }] of sessions.open.entries()) {
      const { items, unreadCount, byType, hasMore, view, connection } = client.getState();
      const told = `seed ${seed}, session ${index}, ${view}`;
      const all = view === "unread" ? model.unread : model.items;
      expect(connection.name, told).toBe("live");
      expect(items.map(shown), told).toEqual(all.slice(0, items.length).map(shown));
      expect(hasMore || items.length === all.length, told).toBe(true);
      expect(unreadCount, told).toBe(model.unread.length);
      expect(byType ?? model.byType, told).toEqual(model.byType);
      const announced = arrived.map(({ position }) => position);
      expect(announced, told).toEqual([...new Set(announced)]);
      expect(Math.min(...announced), told).toBeGreaterThan(from);
    }
    expect(sessions.sockets, `seed ${seed}`).toEqual([1, 1]);
    for (const { client } of sessions.open) client.stop();
  }
}, 60_000);

const shown = ({ id, read_at }: { id: string; read_at: string | null }) =>
  `${id} ${read_at === null ? "unread" : "read"}`;
