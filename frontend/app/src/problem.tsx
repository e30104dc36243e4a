import type { ApiError } from "@notify/client";

interface ProblemProps {
  error: ApiError;
  onRetry?: () => void;
}

/** What went wrong, in the server's words, and what can be done about it. */
export function Problem({ error, onRetry }: ProblemProps) {
  return (
    <div className="problem" role="alert">
      <p>
        {error.message}
        {error.correlationId && (
          <>
            {" "}
            <span className="problem__reference">
              Reference <code>{error.correlationId}</code>
            </span>
          </>
        )}
      </p>
      {onRetry && (
        <button type="button" className="button button--quiet" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}
