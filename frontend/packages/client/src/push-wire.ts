/** The push routes by hand, until the server's description has them. */

import type { components } from "./generated/api.ts";

export interface VapidKey {
  public_key: string;
  key_id: string;
}

export interface SubscribeWeb {
  subscription: {
    endpoint: string;
    expirationTime?: number | null;
    keys: { p256dh: string; auth: string };
  };
  device_info: Record<string, unknown>;
  key_id?: string;
  replaces?: string;
}

export interface Subscribed {
  id: string;
  user_id: string;
  is_active: boolean;
  created_at: string;
}

export interface PushSubscriptionItem {
  id: string;
  kind: "web" | "fcm";
  endpoint: string | null;
  device_info: Record<string, unknown>;
  is_active: boolean;
  key_id: string | null;
  last_used_at: string | null;
  created_at: string;
}

type Json<Body> = { content: { "application/json": Body } };
type Answer<Status extends number, Body> = { responses: Record<Status, Json<Body>> };
type One = { parameters: { path: { subscription_id: string } } };

export interface PushPaths {
  "/api/v1/notifications/push/vapid-public-key": { get: Answer<200, VapidKey> };
  "/api/v1/notifications/push/subscribe": {
    post: { requestBody: Json<SubscribeWeb> } & Answer<201, Subscribed>;
  };
  "/api/v1/notifications/push/subscriptions": {
    get: Answer<200, { items: PushSubscriptionItem[] }>;
  };
  "/api/v1/notifications/push/subscriptions/{subscription_id}": {
    delete: One & { responses: { 204: { content?: never } } };
  };
  "/api/v1/notifications/push/subscriptions/{subscription_id}/test": {
    post: One & Answer<202, components["schemas"]["NotificationAccepted"]>;
  };
}
