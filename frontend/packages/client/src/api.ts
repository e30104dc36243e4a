/** The REST calls of the inbox, typed by the server's own OpenAPI description. */

import createFetchClient from "openapi-fetch";
import type { Environment } from "./environment.ts";
import type { components, paths } from "./generated/api.ts";
import { subjectOf } from "./token.ts";

type Schemas = components["schemas"];

/** `position` is the `seq` at which it became visible, and its place; it never changes. */
export type Notification = Schemas["NotificationItem"];
export type NotificationPage = Schemas["NotificationPage"];
/** Filters and order of the list, and which page of it. */
export type NotificationQuery = NonNullable<
  paths["/api/v1/notifications"]["get"]["parameters"]["query"]
>;
/** What came of a click; `pending` until the service that was told of it has answered. */
export type ClickedAction = Schemas["ClickedAction"];
export type UnreadCounts = Schemas["UnreadCount"];
/** A browser or a phone that is pushed to. */
export type PushDevice = Schemas["Subscription"];
export type BrowserSubscription = Schemas["BrowserSubscription"];
/** What holds for each type and for all, whoever chose it. */
export type Preferences = Schemas["PreferenceList"];
/** What is sent is chosen, `null` takes a choice back, what is left out stays. */
export type UpdatePreference = Schemas["UpdatePreference"];
export type UpdateGlobalPreferences = Schemas["UpdateGlobalPreferences"];
export type UserSettings = Schemas["UserSettings"];
export type UpdateSettings = Schemas["UpdateSettings"];

/**
 * Gives an access token of the signed-in user, or `null` when nobody is signed in any more.
 * `refresh` asks for another token than the last one, which the server refused.
 */
export type TokenProvider = (request: { refresh: boolean }) => Promise<string | null>;

export interface ErrorDetail {
  path: string;
  code: string;
  message: string;
}

/** An answer of the server that is not a success; `status` 0 when none arrived. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: string;
  readonly details: readonly ErrorDetail[];
  readonly correlationId: string | undefined;

  constructor(
    status: number,
    answer: { code: string; message: string; details?: readonly ErrorDetail[] },
    correlationId?: string,
  ) {
    super(answer.message);
    this.status = status;
    this.code = answer.code;
    this.details = answer.details ?? [];
    this.correlationId = correlationId;
  }

  /** Reads the server's error body; anything else, such as a proxy's page, becomes `http_error`. */
  static of(status: number, body: unknown): ApiError {
    const { error, correlation_id } = (body ?? {}) as {
      error?: { code: string; message: string; details?: ErrorDetail[] };
      correlation_id?: string;
    };
    return typeof error?.message === "string"
      ? new ApiError(status, error, correlation_id)
      : new ApiError(status, {
          code: "http_error",
          message: `The server answered with status ${status}.`,
        });
  }
}

export interface ApiOptions {
  baseUrl: string;
  token: TokenProvider;
  environment: Pick<Environment, "fetch">;
}

const TIMEOUT_MS = 15_000;

type Init = { headers: { Authorization: string }; signal: AbortSignal };

interface Outcome<Body> {
  data?: Body;
  error?: unknown;
  response: Response;
}

/** Every call throws `ApiError`, and asks for a fresh token once when the server refuses one. */
export function createApi({ baseUrl, token, environment }: ApiOptions) {
  const http = createFetchClient<paths>({ baseUrl, fetch: environment.fetch });

  async function attempt<Body>(
    send: (init: Init) => Promise<Outcome<Body>>,
    refresh: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Outcome<Body>> {
    const bearer = await token({ refresh });
    if (bearer === null) {
      throw new ApiError(401, { code: "not_authenticated", message: "Nobody is signed in." });
    }
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    return send({
      headers: { Authorization: `Bearer ${bearer}` },
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  }

  async function call<Body>(
    send: (init: Init) => Promise<Outcome<Body>>,
    signal?: AbortSignal,
  ): Promise<Body> {
    let outcome: Outcome<Body>;
    try {
      outcome = await attempt(send, false, signal);
      if (outcome.response.status === 401) outcome = await attempt(send, true, signal);
    } catch (error) {
      if (error instanceof ApiError) throw error;
      return unreachable();
    }
    if (!outcome.response.ok) throw ApiError.of(outcome.response.status, outcome.error);
    return outcome.data as Body;
  }

  const one = (notification_id: string) => ({ params: { path: { notification_id } } });

  const device = (subscription_id: string) => ({ params: { path: { subscription_id } } });

  return {
    /** Whom the calls are made for; `undefined` when the token does not say. */
    user: () => token({ refresh: false }).then(subjectOf, unreachable),

    /** One page of the inbox; `cursor` is the `next_cursor` of the page before. */
    list: (query: NotificationQuery, signal?: AbortSignal) =>
      call((init) => http.GET("/api/v1/notifications", { ...init, params: { query } }), signal),

    get: (id: string, signal?: AbortSignal) =>
      call(
        (init) => http.GET("/api/v1/notifications/{notification_id}", { ...init, ...one(id) }),
        signal,
      ),

    unreadCount: (signal?: AbortSignal) =>
      call((init) => http.GET("/api/v1/notifications/unread-count", init), signal),

    markRead: (id: string) =>
      call((init) =>
        http.PATCH("/api/v1/notifications/{notification_id}/read", {
          ...lasting(init),
          ...one(id),
        }),
      ),

    markUnread: (id: string) =>
      call((init) =>
        http.PATCH("/api/v1/notifications/{notification_id}/unread", {
          ...lasting(init),
          ...one(id),
        }),
      ),

    markAllRead: (body: Schemas["MarkAllRead"]) =>
      call((init) => http.POST("/api/v1/notifications/read-all", { ...lasting(init), body })),

    remove: (id: string) =>
      call((init) =>
        http.DELETE("/api/v1/notifications/{notification_id}", { ...lasting(init), ...one(id) }),
      ),

    /**
     * Runs one of a notification's actions, once, and marks it read; a repeat answers what came of
     * the first.
     *
     * @param action its name, or for one with an address its index.
     */
    click: (id: string, action: string) =>
      call((init) =>
        http.POST("/api/v1/notifications/{notification_id}/actions/{action}", {
          ...lasting(init),
          params: { path: { notification_id: id, action } },
        }),
      ),

    preferences: () => call((init) => http.GET("/api/v1/notifications/preferences", init)),

    /** Chooses for one type; answers what holds for it then. */
    updatePreference: (notification_type: Notification["type"], body: UpdatePreference) =>
      call((init) =>
        http.PUT("/api/v1/notifications/preferences/{notification_type}", {
          ...lasting(init),
          params: { path: { notification_type } },
          body,
        }),
      ),

    /** Chooses for all types; answers what holds for all, and for each, then. */
    updateGlobalPreferences: (body: UpdateGlobalPreferences) =>
      call((init) =>
        http.PUT("/api/v1/notifications/preferences/global", { ...lasting(init), body }),
      ),

    settings: () => call((init) => http.GET("/api/v1/notifications/settings", init)),

    updateSettings: (body: UpdateSettings) =>
      call((init) => http.PUT("/api/v1/notifications/settings", { ...lasting(init), body })),

    /** The key that new subscriptions are made with. */
    vapidKey: () => call((init) => http.GET("/api/v1/notifications/push/vapid-public-key", init)),

    subscribePush: (body: Schemas["Subscribe"]) =>
      call((init) => http.POST("/api/v1/notifications/push/subscribe", { ...init, body })),

    pushDevices: () =>
      call((init) => http.GET("/api/v1/notifications/push/subscriptions", init)).then(
        ({ items }) => items,
      ),

    unsubscribePush: (id: string) =>
      call((init) =>
        http.DELETE("/api/v1/notifications/push/subscriptions/{subscription_id}", {
          ...lasting(init),
          ...device(id),
        }),
      ),

    /** Sends a notification to that device alone. */
    testPush: (id: string) =>
      call((init) =>
        http.POST("/api/v1/notifications/push/subscriptions/{subscription_id}/test", {
          ...init,
          ...device(id),
        }),
      ),
  };
}

function unreachable(): never {
  throw new ApiError(0, { code: "network", message: "The server could not be reached." });
}

/** The request of a change outlives the page, as when a link is followed that marks it read. */
const lasting = (init: Init) => ({ ...init, keepalive: true });

export type Api = ReturnType<typeof createApi>;
