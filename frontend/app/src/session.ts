import { ApiError, type TokenProvider } from "@notify/client";
import { type DemoUser, issueToken } from "./demo.ts";
import { store, stored } from "./storage.ts";

export interface Session {
  user: DemoUser;
  token: string;
  expires_at: string;
}

const KEY = "notify.session";
const NEARLY_EXPIRED_MS = 10_000;

/** The session of this tab, if it has one; it survives reloading and ends with the tab. */
export function storedSession(): Session | null {
  try {
    return JSON.parse(stored("sessionStorage", KEY) ?? "null") as Session | null;
  } catch {
    return null;
  }
}

export async function signIn(user: DemoUser): Promise<Session> {
  const session = { user, ...(await issueToken(user.id)) };
  keep(session);
  return session;
}

function keep(session: Session): void {
  store("sessionStorage", KEY, JSON.stringify(session));
}

export function signOut(): void {
  store("sessionStorage", KEY, null);
}

/** Answers the session's token while it lasts, and signs in again, once for all who ask. */
export function sessionTokens(session: Session): TokenProvider {
  let current = session;
  let renewal: Promise<string | null> | undefined;

  async function renew(): Promise<string | null> {
    try {
      current = { user: current.user, ...(await issueToken(current.user.id)) };
      // Who has signed out meanwhile stays signed out.
      if (storedSession()?.user.id === current.user.id) keep(current);
      return current.token;
    } catch (error) {
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) return null;
      throw error;
    } finally {
      renewal = undefined;
    }
  }

  return async ({ refresh }) => {
    const left = Date.parse(current.expires_at) - Date.now();
    if (!refresh && left > NEARLY_EXPIRED_MS) return current.token;
    renewal ??= renew();
    return renewal;
  };
}
