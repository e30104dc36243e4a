import { ApiError, type Notification } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { useState } from "react";
import { announce } from "./announcements.ts";
import { CheckIcon } from "./icons.tsx";
import { type Answer, answersOf } from "./links.ts";

type State =
  | { status: "open" | "sending" | "completed" | "pending" | "failed" }
  | { status: "unsent"; error: ApiError };

/** The buttons that answer a notification, and what came of each. */
export function Answers({ item }: { item: Notification }) {
  const answers = answersOf(item);
  if (answers.length === 0) return null;
  return (
    <ul className="answers">
      {answers.map((answer) => (
        <li key={answer.action}>
          <AnswerButton item={item} answer={answer} />
        </li>
      ))}
    </ul>
  );
}

function AnswerButton({ item, answer }: { item: Notification; answer: Answer }) {
  const client = useNotificationsClient();
  const [state, setState] = useState<State>({ status: "open" });
  const isOver = ["sending", "completed", "failed"].includes(state.status);

  async function click() {
    if (isOver) return;
    setState({ status: "sending" });
    try {
      const { status } = await client.api.click(item.id, answer.action);
      setState({ status });
      announce(`${answer.label}: ${describe({ status })}`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState({ status: "unsent", error });
      announce(`${answer.label}: ${describe({ status: "unsent", error })}`);
    }
  }

  return (
    <>
      <button
        type="button"
        className={`button answer ${answer.isPrimary ? "button--primary" : ""}`}
        aria-disabled={isOver}
        aria-describedby={`n-${item.id}`}
        data-status={state.status}
        onClick={() => void click()}
      >
        {state.status === "completed" && <CheckIcon />}
        {answer.label}
      </button>
      {state.status !== "open" && state.status !== "completed" && (
        <span className="answer__state" data-status={state.status}>
          {describe(state)}
        </span>
      )}
    </>
  );
}

function describe(state: State): string {
  switch (state.status) {
    case "open":
      return "";
    case "sending":
      return "Sending…";
    case "completed":
      return "Done";
    case "pending":
      return "Sent; no answer yet. Press again to look.";
    case "failed":
      return "It was refused.";
    case "unsent":
      return `Not sent. ${state.error.message}`;
  }
}
