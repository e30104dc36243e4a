import { ApiError, type Push, type PushDevice } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { type KeyboardEvent, useId, useRef, useState } from "react";
import { BinIcon, BrowserIcon, PhoneIcon } from "./icons.tsx";
import { Problem } from "./problem.tsx";
import { type TestState, useDevices, usePush, useTest } from "./push.ts";
import { RelativeTime } from "./time.tsx";

/** Every device of the user: when it was last reached, a test, and how to end push to it. */
export function PushDevices({ push }: { push: Push }) {
  const { deviceId } = usePush(push);
  const [devices, reload] = useDevices(push);
  const [told, setTold] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);
  const id = useId();

  async function revoked(device: PushDevice) {
    await reload();
    setTold(`Removed: ${nameOf(device)}`);
    heading.current?.focus();
  }

  return (
    <section className="push__devices" aria-labelledby={id}>
      <h3 id={id} ref={heading} tabIndex={-1}>
        Your devices
      </h3>
      {devices.status === "loading" && <DeviceSkeleton />}
      {devices.status === "error" && (
        <Problem error={devices.error} onRetry={() => void reload()} />
      )}
      {devices.status === "ready" && devices.items.length === 0 && (
        <p className="push__none muted">None yet. Those you turn push on for are listed here.</p>
      )}
      {devices.status === "ready" && devices.items.length > 0 && (
        <ul className="devices">
          {devices.items.map((device) => (
            <li key={device.id}>
              <Device
                push={push}
                device={device}
                isThis={device.id === deviceId}
                onUsed={() => void reload()}
                onRevoked={() => void revoked(device)}
              />
            </li>
          ))}
        </ul>
      )}
      <p className="visually-hidden" role="status">
        {told}
      </p>
    </section>
  );
}

interface DeviceProps {
  push: Push;
  device: PushDevice;
  isThis: boolean;
  onUsed: () => void;
  onRevoked: () => void;
}

function Device({ push, device, isThis, onUsed, onRevoked }: DeviceProps) {
  const client = useNotificationsClient();
  const [test, sendTest] = useTest(client, push, device.id, onUsed);
  const isTesting = test === "sending" || test === "pending";
  const [isAsking, setAsking] = useState<boolean>();
  const name = useId();
  return (
    <article className="device" aria-labelledby={name}>
      <span className="device__tile">
        {device.kind === "web" ? <BrowserIcon /> : <PhoneIcon />}
      </span>
      <div className="device__text">
        <h4 id={name}>{nameOf(device)}</h4>
        <p className="muted">
          {isThis && <span className="device__this">This device</span>}
          <span>{platformOf(device)}</span>
          <span>{device.is_active ? <LastUsed at={device.last_used_at} /> : "Disabled"}</span>
        </p>
      </div>
      {isAsking ? (
        <Revoke push={push} device={device} onRevoked={onRevoked} onKept={() => setAsking(false)} />
      ) : (
        <div className="device__tools">
          {device.is_active && (
            <button
              type="button"
              className="button"
              aria-describedby={name}
              aria-disabled={isTesting}
              onClick={() => !isTesting && void sendTest()}
            >
              Send test
            </button>
          )}
          <button
            type="button"
            className="button button--icon"
            aria-label="Remove"
            title="Remove"
            aria-describedby={name}
            // biome-ignore lint/a11y/noAutofocus: it comes back in the place of the button just pressed
            autoFocus={isAsking === false}
            onClick={() => setAsking(true)}
          >
            <BinIcon />
          </button>
        </div>
      )}
      <p className="device__test" role="status" data-state={stateName(test)}>
        {describeTest(test)}
      </p>
    </article>
  );
}

interface RevokeProps {
  push: Push;
  device: PushDevice;
  onRevoked: () => void;
  onKept: () => void;
}

/** Asks once more, in the place of the buttons, so that nothing moves. */
function Revoke({ push, device, onRevoked, onKept }: RevokeProps) {
  const [state, setState] = useState<"asking" | "revoking" | ApiError>("asking");

  async function revoke() {
    if (state === "revoking") return;
    setState("revoking");
    try {
      await push.revoke(device.id);
      onRevoked();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState(error);
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key !== "Escape") return;
    // It ends the question, not the panel.
    event.preventDefault();
    onKept();
  }

  return (
    <fieldset className="device__tools" onKeyDown={onKeyDown}>
      <legend className="visually-hidden">Remove it?</legend>
      <button
        type="button"
        className="button button--bad"
        aria-disabled={state === "revoking"}
        // biome-ignore lint/a11y/noAutofocus: it takes the place of the button just pressed
        autoFocus
        onClick={() => void revoke()}
      >
        {state === "revoking" ? "Removing…" : "Remove"}
      </button>
      <button type="button" className="button button--quiet" onClick={onKept}>
        Keep
      </button>
      {state instanceof ApiError && (
        <span className="device__failed" role="alert">
          {state.message}
        </span>
      )}
    </fieldset>
  );
}

const LastUsed = ({ at }: { at: string | null }) =>
  at === null ? (
    "No push yet"
  ) : (
    <>
      Last push <RelativeTime at={at} />
    </>
  );

const PLATFORMS: Readonly<Record<string, string>> = {
  web: "Browser",
  ios: "iOS",
  android: "Android",
};

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value.trim() !== "" ? value : undefined;

function platformOf({ kind, device_info }: PushDevice): string {
  const platform = text(device_info["platform"]) ?? (kind === "web" ? "web" : "Phone");
  return PLATFORMS[platform.toLowerCase()] ?? platform;
}

const nameOf = (device: PushDevice): string =>
  text(device.device_info["device_name"]) ?? `${platformOf(device)} without a name`;

const stateName = (state: TestState) => (typeof state === "string" ? state : "failed");

function describeTest(state: TestState): string {
  if (typeof state !== "string") return `Not sent. ${state.error.message}`;
  switch (state) {
    case "idle":
      return "";
    case "sending":
      return "Sending…";
    case "pending":
      return "On its way…";
    case "sent":
      return "Sent, but not confirmed yet.";
    case "delivered":
      return "It has arrived.";
    case "failed":
      return "It could not be delivered.";
    case "skipped":
      return "It was not sent: the settings or the device do not allow it.";
    case "waiting":
      return "It has not been sent yet: the push service, quiet hours or a limit may hold it.";
    case "lost":
      return "It is on its way, but the server does not say what became of it.";
  }
}

function DeviceSkeleton() {
  return (
    <div className="devices" role="status" aria-label="Loading your devices">
      <div className="device">
        <span className="skeleton skeleton--tile" />
        <div className="device__text">
          <span className="skeleton skeleton--line" />
          <span className="skeleton skeleton--short" />
        </div>
      </div>
    </div>
  );
}
