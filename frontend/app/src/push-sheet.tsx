import { ApiError, type Push, type PushState } from "@notify/client";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { CheckIcon } from "./icons.tsx";
import { Problem } from "./problem.tsx";
import { usePush } from "./push.ts";
import { PushDevices } from "./push-devices.tsx";
import { Sheet } from "./sheet.tsx";

/** Push: what it is good for, whether it is on here, and where else it is. */
export function PushSheet({ push, onClose }: { push: Push; onClose: () => void }) {
  return (
    <Sheet title="Push notifications" onClose={onClose}>
      <div className="push">
        <ThisDevice push={push} />
        <PushDevices push={push} />
      </div>
    </Sheet>
  );
}

function ThisDevice({ push }: { push: Push }) {
  const state = usePush(push);
  const here = useRef<HTMLElement>(null);
  const { status } = state;

  // biome-ignore lint/correctness/useExhaustiveDependencies: the button may leave with the focus
  useEffect(() => {
    if (document.activeElement === document.body) here.current?.focus();
  }, [status]);

  return (
    <section
      className="push__here"
      ref={here}
      tabIndex={-1}
      aria-label="This device"
      data-status={status}
    >
      <div role="status">{describe(state)}</div>
      <Switch push={push} status={status} />
      {state.error && (
        <>
          <p className="muted">Whether push works here could not be checked; it is tried again.</p>
          <Problem error={state.error} />
        </>
      )}
    </section>
  );
}

function describe({ status, wasRevoked }: PushState): ReactNode {
  switch (status) {
    case "checking":
      return (
        <>
          <span className="visually-hidden">Looking whether push is on</span>
          <span className="skeleton skeleton--text" />
          <span className="skeleton skeleton--line" />
        </>
      );
    case "on":
      return (
        <>
          <p className="push__on">
            <CheckIcon />
            Push is on, on this device.
          </p>
          <p className="muted">
            Notifications come here also when this page is closed, until you turn it off or sign
            out.
          </p>
        </>
      );
    case "default":
    case "off":
      return wasRevoked ? (
        <>
          <p>Push was turned off for this device.</p>
          <p className="muted">
            It is not among your devices any more. Turn it on to have it back.
          </p>
        </>
      ) : (
        <>
          <p>Know at once what happens, also when this page is closed.</p>
          <p className="muted">
            {status === "default" &&
              "Your browser will ask whether Notify may show notifications. "}
            You can turn it off here at any time.
          </p>
        </>
      );
    case "denied":
      return (
        <>
          <p>Your browser blocks notifications from this site.</p>
          <ol className="push__steps">
            <li>Open the site’s settings, by the icon left of the address.</li>
            <li>Set “Notifications” to “Allow”.</li>
            <li>Come back here, and turn push on.</li>
          </ol>
        </>
      );
    case "needs-install":
      return (
        <>
          <p>On iPhone and iPad, push comes to what is on the home screen.</p>
          <ol className="push__steps">
            <li>Tap “Share” in Safari’s bar.</li>
            <li>Choose “Add to Home Screen”.</li>
            <li>Open Notify from there, and turn push on.</li>
          </ol>
        </>
      );
    case "unsupported":
      return (
        <>
          <p>This browser cannot receive push.</p>
          <p className="muted">
            {window.isSecureContext
              ? "A current Chrome, Edge, Firefox or Safari can; private windows often cannot."
              : "Browsers allow it over https only, and this page came over http."}
          </p>
        </>
      );
  }
}

/** Turns push on or off, where the user can; one button, which keeps the focus. */
function Switch({ push, status }: { push: Push; status: PushState["status"] }) {
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const isOn = status === "on";

  async function change() {
    if (busy) return;
    setBusy(isOn ? "Turning off…" : "Turning on…");
    setError(null);
    try {
      await (isOn ? push.disable() : push.enable());
    } catch (failure) {
      if (!(failure instanceof ApiError)) throw failure;
      setError(failure);
    } finally {
      setBusy(null);
    }
  }

  return (
    <>
      {(isOn || status === "default" || status === "off") && (
        <button
          type="button"
          className={isOn ? "button" : "button button--primary"}
          aria-disabled={busy !== null}
          onClick={() => void change()}
        >
          {busy ?? (isOn ? "Turn off" : "Turn on push on this device")}
        </button>
      )}
      {error && <Problem error={error} />}
    </>
  );
}
