import type { ModelServer } from "./model-server.ts";
import { authenticated, type FakeSocket, type FakeWorld } from "./support.ts";

/** A model server as its clients see it: over HTTP and sockets. */
export class Service {
  readonly model: ModelServer;
  /** What becomes of the next request that changes something. */
  mishap: () => "none" | "refused" | "lost" | "answer lost" = () => "none";
  /** Lets other things happen before and after a request is worked on. */
  pause: () => Promise<void> = async () => undefined;
  readonly #live = new Set<FakeSocket>();

  constructor(model: ModelServer) {
    this.model = model;
    model.onFrame = (frame) => {
      const { seq } = frame;
      const counts = { count: model.unread.length, by_type: model.byType };
      for (const socket of this.#live) {
        if (socket.closed) continue;
        socket.says(frame);
        socket.says({ type: "unread_count", seq, ...counts });
      }
    };
  }

  /** Gives `world` a network that leads here. */
  serve(world: FakeWorld): void {
    world.answer = (request) => this.#answer(request);
    world.onSocket = (socket) => {
      socket.onSent = (message) => this.#heard(socket, message);
      // A browser opens it later too.
      setImmediate(() => {
        if (!socket.closed) socket.opens();
      });
    };
  }

  #heard(socket: FakeSocket, message: Record<string, unknown>): void {
    const { seq, unread } = this.model;
    if (message["type"] === "ping") socket.says({ type: "pong", timestamp: "t", seq });
    if (message["type"] !== "authenticate") return;
    const since = message["since"] as number | undefined;
    socket.says(authenticated({ seq, unread_count: unread.length }));
    for (const frame of this.model.netChanges(since ?? seq)) socket.says(frame);
    socket.says({ type: "sync_complete", seq });
    this.#live.add(socket);
  }

  async #answer(request: Request): Promise<Response> {
    const mishap = request.method === "GET" ? "none" : this.mishap();
    const body = request.method === "POST" ? await request.json() : undefined;
    await this.pause();
    if (mishap === "lost") throw new TypeError("network");
    if (mishap === "refused") return Response.json({}, { status: 503 });
    const answer = this.#work(request, body);
    await this.pause();
    if (mishap === "answer lost") throw new TypeError("network");
    return answer;
  }

  #work({ method, url }: Request, body: { up_to: number | null; type: string | null }): Response {
    const { pathname, searchParams } = new URL(url);
    const [id = "", action] = pathname.split("/").slice(4);
    if (method === "GET" && id) {
      const found = this.model.items.find((item) => item.id === id);
      return Response.json(found ?? {}, { status: found ? 200 : 404 });
    }
    if (method === "GET") {
      const cursor = searchParams.get("cursor");
      const isRead = searchParams.get("is_read") === "false" ? false : undefined;
      return Response.json(this.model.page(isRead, cursor === null ? undefined : Number(cursor)));
    }
    if (id === "read-all") {
      this.model.readAll(body);
      return Response.json({ updated_count: 0 });
    }
    const isThere = action ? this.model.setRead(id, action === "read") : this.model.remove(id);
    if (!isThere) return Response.json({}, { status: 404 });
    return action ? Response.json({ id, read_at: "read" }) : new Response(null, { status: 204 });
  }
}
