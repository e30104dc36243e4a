/** The controls of the page: each says its value as soon as it is meant. */

import type { ErrorDetail } from "@notify/client";
import {
  type ComponentProps,
  type KeyboardEvent,
  type ReactNode,
  useEffect,
  useId,
  useRef,
  useState,
} from "react";

interface SwitchProps {
  label: ReactNode;
  checked: boolean;
  disabled?: boolean;
  describedBy?: string | undefined;
  onChange: (checked: boolean) => void;
}

export function Switch({ label, checked, disabled = false, describedBy, onChange }: SwitchProps) {
  return (
    <label className="switch">
      <span className="switch__label">{label}</span>
      <input
        type="checkbox"
        // biome-ignore lint/a11y/useAriaPropsForRole: the browser tells whether it is checked
        role="switch"
        checked={checked}
        disabled={disabled}
        aria-describedby={describedBy}
        onChange={({ target }) => onChange(target.checked)}
      />
    </label>
  );
}

interface FieldProps {
  label: ReactNode;
  problem?: ErrorDetail | undefined;
}

type Described = Pick<ComponentProps<"input">, "id" | "aria-invalid" | "aria-describedby">;

/** A label above a control, and what the server has against its last value below. */
export function Field({
  label,
  problem,
  children,
}: FieldProps & { children: (field: Described) => ReactNode }) {
  const id = useId();
  const message = `${id}-problem`;
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children({
        id,
        "aria-invalid": problem !== undefined,
        "aria-describedby": problem && message,
      })}
      {problem && <Refused id={message} problem={problem} />}
    </div>
  );
}

/** Why a value was taken back. */
export const Refused = ({ id, problem }: { id?: string; problem: ErrorDetail }) => (
  <p id={id} className="field__problem" role="alert">
    Not saved: {problem.message}
  </p>
);

interface SelectFieldProps<Value extends string> extends FieldProps {
  value: Value;
  options: readonly (readonly [Value, string])[];
  disabled?: boolean;
  onChange: (value: Value) => void;
}

export function SelectField<Value extends string>({
  label,
  problem,
  value,
  options,
  disabled = false,
  onChange,
}: SelectFieldProps<Value>) {
  return (
    <Field label={label} problem={problem}>
      {(field) => (
        <select
          {...field}
          value={value}
          disabled={disabled}
          onChange={({ target }) => onChange(target.value as Value)}
        >
          {options.map(([name, text]) => (
            <option key={name} value={name}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** A time is typed in parts; it is meant once nothing has been typed for as long. */
const TYPED_MS = 900;

interface InputFieldProps extends FieldProps {
  value: string;
  onChange: (value: string) => void;
}

export function TimeField({ label, problem, value, onChange }: InputFieldProps) {
  return (
    <Field label={label} problem={problem}>
      {(field) => (
        <TypedInput
          {...field}
          type="time"
          required
          stored={value.slice(0, 5)}
          patience={TYPED_MS}
          onMeant={onChange}
        />
      )}
    </Field>
  );
}

interface TextFieldProps extends InputFieldProps, Pick<ComponentProps<"input">, "placeholder"> {}

export function TextField({ label, problem, value, onChange, placeholder }: TextFieldProps) {
  return (
    <Field label={label} problem={problem}>
      {(field) => (
        <TypedInput
          {...field}
          type="text"
          autoComplete="off"
          spellCheck={false}
          placeholder={placeholder}
          stored={value}
          onMeant={onChange}
        />
      )}
    </Field>
  );
}

interface TypedInputProps extends ComponentProps<"input"> {
  stored: string;
  /** After how many milliseconds without typing it is meant; else when it is left, or by Enter. */
  patience?: number;
  onMeant: (value: string) => void;
}

function TypedInput({ stored, patience, onMeant, ...props }: TypedInputProps) {
  const [typed, setTyped] = useState<string | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);

  function mean(value: string | null) {
    clearTimeout(timer.current);
    if (value === null) return;
    setTyped(null);
    // What is emptied means nothing: the stored value is shown again.
    if (value.trim() !== "" && value !== stored) onMeant(value.trim());
  }

  const leave = useRef<() => void>(undefined);
  leave.current = () => mean(typed);
  useEffect(() => () => leave.current?.(), []);

  function onKeyDown({ key }: KeyboardEvent) {
    if (key === "Enter") mean(typed);
    if (key === "Escape") setTyped(null);
  }

  return (
    <input
      {...props}
      value={typed ?? stored}
      onChange={({ target: { value } }) => {
        setTyped(value);
        clearTimeout(timer.current);
        if (patience !== undefined && value !== "") {
          timer.current = setTimeout(() => mean(value), patience);
        }
      }}
      onBlur={() => mean(typed)}
      onKeyDown={onKeyDown}
    />
  );
}

interface SectionProps {
  title: string;
  about: ReactNode;
  children: ReactNode;
}

/** A heading with what it is about, and beside or below it the panel. */
export function Section({ title, about, children }: SectionProps) {
  const id = useId();
  return (
    <section className="part" aria-labelledby={id}>
      <div className="part__head">
        <h2 id={id}>{title}</h2>
        <div className="muted">{about}</div>
      </div>
      <div className="panel">{children}</div>
    </section>
  );
}
