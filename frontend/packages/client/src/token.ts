/** What an access token says of itself; only the server can tell whether that is true. */

import type { TokenProvider } from "./api.ts";
import type { Environment } from "./environment.ts";

/** Tokens with less than this left are as good as expired. */
const NEARLY_EXPIRED_MS = 5_000;
/** A token that takes longer does not come any more. */
const TIMEOUT_MS = 15_000;

interface Claims {
  sub?: unknown;
  exp?: unknown;
}

/** Whom `token` is for; `undefined` when it is none that can be read. */
export function subjectOf(token: string | null): string | undefined {
  const { sub } = claimsOf(token);
  return typeof sub === "string" ? sub : undefined;
}

/** Asks `provider` for another token where the one it has is known to have expired. */
export function unexpired(provider: TokenProvider, now: () => number): TokenProvider {
  return async ({ refresh }) => {
    const token = await provider({ refresh });
    if (refresh) return token;
    const { exp } = claimsOf(token);
    const isOver = typeof exp === "number" && exp * 1000 - now() < NEARLY_EXPIRED_MS;
    return isOver ? provider({ refresh: true }) : token;
  };
}

/** Answers `null` once the tokens are another user's: what is held is not theirs to see. */
export function ofOneUser(provider: TokenProvider): TokenProvider {
  let user: string | undefined;
  return async (request) => {
    const token = await provider(request);
    const subject = subjectOf(token);
    user ??= subject;
    return subject === user || subject === undefined ? token : null;
  };
}

/** Gives up waiting for a provider that answers nothing. */
export function inTime(
  provider: TokenProvider,
  environment: Pick<Environment, "after">,
): TokenProvider {
  return (request) =>
    new Promise((resolve, reject) => {
      const expire = () => reject(new Error("No token came in time."));
      const cancel = environment.after(TIMEOUT_MS, expire);
      provider(request).finally(cancel).then(resolve, reject);
    });
}

function claimsOf(token: string | null): Claims {
  try {
    const [, payload = ""] = token?.split(".") ?? [];
    const bytes = atob(payload.replaceAll("-", "+").replaceAll("_", "/"));
    return (JSON.parse(bytes) as Claims | null) ?? {};
  } catch {
    return {};
  }
}
