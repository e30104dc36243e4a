import { type Api, ApiError, type ErrorDetail } from "@notify/client";
import { type Answer, answered, applied, type Change, type Choices, replaces } from "./choices.ts";

/** A change that was not made, and taken back. */
export interface Refusal {
  change: Change;
  error: ApiError;
}

export interface SavingState {
  /** With what is still on its way. */
  choices: Choices;
  /** `failed` where something was refused since all was saved last. */
  status: "idle" | "saving" | "saved" | "failed";
  refusals: readonly Refusal[];
}

type Calls = Pick<Api, "updateGlobalPreferences" | "updatePreference" | "updateSettings">;

/**
 * Shows changes at once and sends them one after the other, in order; takes back what is refused.
 */
export class Saving {
  readonly #api: Calls;
  readonly #listeners = new Set<() => void>();
  /** As the server told last. */
  #stored: Choices;
  /** The first is on its way. */
  #waiting: Change[] = [];
  #state: SavingState;

  constructor(api: Calls, choices: Choices) {
    this.#api = api;
    this.#stored = choices;
    this.#state = { choices, status: "idle", refusals: [] };
  }

  getState = (): SavingState => this.#state;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** What was refused of the same fields is forgotten. */
  save(...changes: Change[]): void {
    const isIdle = this.#waiting.length === 0;
    for (const change of changes) {
      const [sent, ...queued] = this.#waiting;
      const kept = queued.filter((former) => !replaces(change, former));
      this.#waiting = [...(sent ? [sent] : []), ...kept, change];
    }
    const refusals = this.#state.refusals.filter(
      (refusal) => !changes.some((change) => concern(refusal.change, change)),
    );
    this.#show({ status: "saving", refusals });
    if (isIdle) void this.#send();
  }

  /** Makes all that was refused once more. */
  retry(): void {
    this.save(...this.#state.refusals.map(({ change }) => change));
  }

  dismiss(): void {
    this.#show({ status: "idle", refusals: [] });
  }

  async #send(): Promise<void> {
    const change = this.#waiting[0];
    if (!change) {
      if (this.#state.status === "saving") this.#show({ status: "saved" });
      return;
    }
    try {
      this.#stored = answered(this.#stored, await this.#call(change));
      this.#waiting = this.#waiting.slice(1);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#waiting = this.#waiting.slice(1);
      // What was chosen meanwhile says more than what was refused.
      if (!this.#waiting.some((next) => replaces(next, change))) {
        this.#show({ status: "failed", refusals: [...this.#state.refusals, { change, error }] });
      }
    }
    this.#show({});
    await this.#send();
  }

  async #call(change: Change): Promise<Answer> {
    switch (change.target) {
      case "settings":
        return { settings: await this.#api.updateSettings(change.body) };
      case "global": {
        const { items, ...global } = await this.#api.updateGlobalPreferences(change.body);
        return { items, global };
      }
      default:
        return this.#api.updatePreference(change.target, change.body);
    }
  }

  #show(changed: Partial<Omit<SavingState, "choices">>): void {
    const choices = this.#waiting.reduce(applied, this.#stored);
    this.#state = { ...this.#state, ...changed, choices };
    for (const listener of this.#listeners) listener();
  }
}

/** Whether two changes say something about the same field. */
const concern = (one: Change, other: Change): boolean =>
  one.target === other.target && Object.keys(one.body).some((field) => field in other.body);

/** What the server said about a field, by the path it calls it, such as `quiet_hours.1.0`. */
export const problemOf = (
  refusals: readonly Refusal[],
  target: Change["target"],
  ...fields: string[]
): ErrorDetail | undefined =>
  refusals
    .filter(({ change }) => change.target === target)
    .flatMap(({ error }) => error.details)
    .find(({ path }) => fields.some((field) => isWithin(path, field)));

const isWithin = (path: string, field: string) => path === field || path.startsWith(`${field}.`);

/** What no field can tell of itself. */
export const untold = (refusals: readonly Refusal[]): Refusal[] =>
  refusals.filter(
    ({ change, error }) =>
      error.details.length === 0 ||
      !error.details.every(({ path }) =>
        Object.keys(change.body).some((field) => isWithin(path, field)),
      ),
  );
