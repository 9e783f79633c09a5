# Sourced by job scripts of SLURM that are to outlast their time limit, before all else, so that no signal comes too
# early. They ask for `--requeue`, and for `--signal=B:USR1@SECONDS`: SIGUSR1 that long before the limit (and up to a
# minute earlier), to the script's shell alone. Without SLURM, or in a job that is no array, nothing is done.
warned= work=

# SIGTERM, on which Python saves and ends, goes to the work's whole process group.
end_work() {
    warned=yes
    [ -z "$work" ] || kill -TERM -- "-$work" 2> /dev/null || true
}

# SLURM sends SIGTERM to every process of a task that is cancelled, preempted or out of time, and itself knows whether
# to requeue it. The shell only waits then, so that it does not end, and all others with it, before Python has saved.
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
    trap end_work USR1
    trap : TERM
fi

# requeue_when_warned COMMAND...: runs a command or function, and ends with its exit code. Warned, it ends the command,
# waits until that has saved, and has SLURM start the task anew; not where the command was done or had failed before.
# The task is named by its index: the last one of an array has the number of the whole array as its own.
requeue_when_warned() {
    if [ -z "${SLURM_ARRAY_JOB_ID:-}" ]; then
        "$@"
        return
    fi
    local code=0
    set -m  # a process group of its own
    # The shell that runs the command waits for it at SIGTERM, and does not begin the next one.
    (
        trap 'exit 143' TERM
        "$@"
    ) &
    work=$!
    set +m
    [ -z "$warned" ] || end_work
    # `wait` ends at every signal. The work is in the background, as a shell does nothing on signals while it waits for
    # a command in the foreground.
    while kill -0 "$work" 2> /dev/null; do wait "$work" || true; done
    wait "$work" || code=$?
    if [ "$warned" ] && [ $code = 143 ]; then
        echo "the time limit is near: saved; the task is requeued"
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" || true  # it may die with this task
    fi
    exit $code  # never 0 where the work is not done
}
