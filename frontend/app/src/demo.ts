/**
 * What the host application would do: sign users in and send notifications.
 *
 * The server offers these routes in development only; elsewhere they answer 404.
 */

import { ApiError } from "@notify/client";

export interface DemoUser {
  id: string;
  full_name: string;
  email: string;
  timezone: string;
  locale: string;
}

export interface Draft {
  user_id: string;
  type: string;
  priority: string;
  title: string;
  body: string;
  data: { action_url?: string };
  send_email?: true;
}

export interface Accepted {
  id: string;
  status: string;
  channels: readonly string[];
  created_at: string;
}

export const listUsers = async (): Promise<DemoUser[]> =>
  (await call<{ users: DemoUser[] }>("/demo/users")).users;

export const issueToken = (userId: string): Promise<{ token: string; expires_at: string }> =>
  call("/demo/token", { user_id: userId });

export const sendNotification = (draft: Draft): Promise<Accepted> =>
  call("/demo/notifications", draft);

export const listLinks = (): Promise<{ mailbox: string }> => call("/demo/links");

async function call<Answer>(path: string, body?: object): Promise<Answer> {
  let response: Response;
  try {
    response = await fetch(path, body ? post(body) : {});
  } catch {
    throw new ApiError(0, { code: "network", message: "The server could not be reached." });
  }
  const answer: unknown = await response.json().catch(() => undefined);
  if (!response.ok) throw ApiError.of(response.status, answer);
  return answer as Answer;
}

const post = (body: object): RequestInit => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
