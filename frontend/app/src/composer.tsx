import { ApiError, type ErrorDetail } from "@notify/client";
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";
import {
  type Accepted,
  type DemoUser,
  type Draft,
  listLinks,
  listUsers,
  sendNotification,
} from "./demo.ts";
import { ArrowIcon, CheckIcon } from "./icons.tsx";
import { useLoaded } from "./loading.ts";
import { Problem } from "./problem.tsx";

const TYPES = ["task", "user", "system", "workflow", "agent", "billing", "security"];
const PRIORITIES = ["normal", "low", "high", "critical"];

const EXAMPLE = {
  title: "Review requested",
  body: "**Mira** asked you to look at *Pull request 128*.",
  link: "/docs",
};

/** Each field of the form by the path the server calls it in an error. */
const FIELDS: Readonly<Record<string, string>> = {
  user_id: "user_id",
  type: "type",
  priority: "priority",
  title: "title",
  body: "body",
  "data.action_url": "link",
  send_email: "send_email",
};

type Outcome =
  | { status: "editing" }
  | { status: "sending" }
  | { status: "accepted"; answer: Accepted }
  | { status: "refused"; error: ApiError };

/** Posts as the demo service would, and shows what the server answers. */
export function Composer({ user }: { user: DemoUser }) {
  const [users] = useLoaded(listUsers);
  const [links] = useLoaded(listLinks);
  const [outcome, setOutcome] = useState<Outcome>({ status: "editing" });
  const form = useRef<HTMLFormElement>(null);
  const recipients = users.status === "ready" ? users.value : [user];
  const mailbox = links.status === "ready" ? links.value.mailbox : undefined;
  const problems = outcome.status === "refused" ? outcome.error.details : [];
  const problemOf = (field: string) => problems.find(({ path }) => fieldOf(path) === field);

  async function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    if (outcome.status === "sending") return;
    setOutcome({ status: "sending" });
    try {
      const answer = await sendNotification(draftOf(new FormData(event.currentTarget)));
      setOutcome({ status: "accepted", answer });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setOutcome({ status: "refused", error });
      const [first] = error.details.map(({ path }) => fieldOf(path)).filter(isText);
      if (first) form.current?.querySelector<HTMLElement>(`[name="${first}"]`)?.focus();
    }
  }

  if (users.status === "error" && users.error.status === 404) {
    return <p className="muted">Only a development installation can send from this page.</p>;
  }
  return (
    <form ref={form} className="composer" noValidate onSubmit={(event) => void send(event)}>
      <p className="muted">Sends as a service of yours would.</p>
      <Field label="To" problem={problemOf("user_id")}>
        {(field) => (
          <select name="user_id" defaultValue={user.id} key={recipients.length} {...field}>
            {recipients.map(({ id, full_name }) => (
              <option key={id} value={id}>
                {full_name}
              </option>
            ))}
          </select>
        )}
      </Field>
      <div className="composer__pair">
        <Field label="Type" problem={problemOf("type")}>
          {(field) => (
            <select name="type" {...field}>
              {TYPES.map((type) => (
                <option key={type} value={type}>
                  {capitalised(type)}
                </option>
              ))}
            </select>
          )}
        </Field>
        <Field label="Priority" problem={problemOf("priority")}>
          {(field) => (
            <select name="priority" {...field}>
              {PRIORITIES.map((priority) => (
                <option key={priority} value={priority}>
                  {capitalised(priority)}
                </option>
              ))}
            </select>
          )}
        </Field>
      </div>
      <Field label="Title" problem={problemOf("title")}>
        {(field) => (
          <input name="title" defaultValue={EXAMPLE.title} autoComplete="off" {...field} />
        )}
      </Field>
      <Field label="Body" hint="Markdown" problem={problemOf("body")}>
        {(field) => <textarea name="body" rows={3} defaultValue={EXAMPLE.body} {...field} />}
      </Field>
      <Field label="Link" hint="optional" problem={problemOf("link")}>
        {(field) => <input name="link" defaultValue={EXAMPLE.link} autoComplete="off" {...field} />}
      </Field>
      <div className="composer__send">
        <label className="check">
          <input type="checkbox" name="send_email" />
          Email it now
        </label>
        <button
          type="submit"
          className="button button--primary"
          aria-disabled={outcome.status === "sending"}
        >
          {outcome.status === "sending" ? "Sending…" : "Send"}
        </button>
      </div>
      {outcome.status === "refused" && !isToldByFields(outcome.error) && (
        <Problem error={outcome.error} />
      )}
      <div role="status">
        {outcome.status === "accepted" && <Receipt answer={outcome.answer} mailbox={mailbox} />}
      </div>
      {mailbox && outcome.status !== "accepted" && (
        <p className="composer__mailbox muted">
          Emails stay on this machine.{" "}
          <a className="mailbox-link" href={mailbox} target="_blank" rel="noreferrer">
            Open the sandbox mailbox
            <ArrowIcon />
          </a>
        </p>
      )}
    </form>
  );
}

function Receipt({ answer, mailbox }: { answer: Accepted; mailbox: string | undefined }) {
  const receipt = useRef<HTMLDivElement>(null);
  useEffect(() => receipt.current?.scrollIntoView({ block: "nearest" }), []);
  return (
    <div ref={receipt} className="receipt" data-testid="receipt">
      <p className="receipt__head">
        <CheckIcon />
        202 Accepted, {answer.status}
      </p>
      <dl>
        <div>
          <dt>Id</dt>
          <dd>
            <code>{answer.id}</code>
          </dd>
        </div>
        <div>
          <dt>Channels</dt>
          <dd>{answer.channels.join(", ").replaceAll("_", "-") || "none"}</dd>
        </div>
      </dl>
      {mailbox && (
        <a className="mailbox-link" href={mailbox} target="_blank" rel="noreferrer">
          Open the sandbox mailbox
          <ArrowIcon />
        </a>
      )}
    </div>
  );
}

interface FieldProps {
  label: string;
  hint?: string;
  problem: ErrorDetail | undefined;
  children: (field: {
    id: string;
    "aria-invalid": boolean;
    "aria-describedby": string | undefined;
  }) => ReactNode;
}

function Field({ label, hint, problem, children }: FieldProps) {
  const id = useId();
  const message = `${id}-problem`;
  return (
    <div className="field">
      <label htmlFor={id}>
        {label} {hint && <span className="muted">{hint}</span>}
      </label>
      {children({
        id,
        "aria-invalid": problem !== undefined,
        "aria-describedby": problem ? message : undefined,
      })}
      {problem && (
        <p id={message} className="field__problem">
          {problem.message}
        </p>
      )}
    </div>
  );
}

function draftOf(form: FormData): Draft {
  const text = (name: string) => String(form.get(name) ?? "");
  return {
    user_id: text("user_id"),
    type: text("type"),
    priority: text("priority"),
    title: text("title"),
    body: text("body"),
    data: text("link") ? { action_url: text("link") } : {},
    ...(form.has("send_email") && { send_email: true as const }),
  };
}

/** Whether every fault stands beside its own field already. */
const isToldByFields = ({ details }: ApiError) =>
  details.length > 0 && details.every(({ path }) => fieldOf(path) !== undefined);

const fieldOf = (path: string): string | undefined => FIELDS[path];
const capitalised = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);
const isText = (value: string | undefined): value is string => value !== undefined;
