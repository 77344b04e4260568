#!/usr/bin/env bash
# A real SLURM of one machine, and a sweep of four cells on it: sbatch through submitit, one store, an early end.
# Needs root and Debian (apt-get install slurm-wlm munge) and `pip install 'lockdec[sweeps]'`; not part of the tests.
#   bash tests/cluster/slurm.sh          prints what happened; status 0 when all cells have finished and share their stages
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d) outputs=$work/outputs
export PYTHONPATH=$PWD OMP_NUM_THREADS=1 SLURM_CONF=$work/slurm.conf GLOO_SOCKET_IFNAME=lo
host=$(hostname -s) cores=$(getconf _NPROCESSORS_ONLN)  # nproc would heed OMP_NUM_THREADS
controller_port=$((20000 + RANDOM % 5000)) node_port=$((25000 + RANDOM % 5000))
mkdir -p "$work"/{spool,state,munge}
started=()

stop() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    sleep 5  # slurmd may wait for what its job leaves behind
    for process in "${started[@]}"; do kill -9 "$process" 2>/dev/null || true; done
}
trap stop EXIT

dd if=/dev/urandom bs=1 count=1024 of="$work/munge/key" status=none
chmod 700 "$work/munge" && chmod 400 "$work/munge/key"
cat > "$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
JobRequeue=1
KillWait=15
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=local Nodes=$host Default=YES MaxTime=60 State=UP
CONF

munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" >/dev/null 2>&1 & started+=($!)
sleep 1
slurmctld -D -f "$SLURM_CONF" > "$work/slurmctld.log" 2>&1 & started+=($!)
slurmd -D -f "$SLURM_CONF" -N "$host" > "$work/slurmd.log" 2>&1 & started+=($!)
for _ in $(seq 60); do sinfo -h -o %T 2>/dev/null | grep -q idle && break; sleep 0.5; done
sinfo || { tail "$work"/*.log; exit 1; }

sweep() {
    timeout 400 python -m lockdec.run -m hydra/launcher=submitit_slurm hydra.launcher.partition=local \
        hydra.launcher.cpus_per_task=1 hydra.launcher.timeout_min=20 hydra.launcher.array_parallelism="$cores" \
        debug=tiny data.limit=64 fewshot.shots=8 "paths.outputs=$outputs" "$@"
}

echo "== four cells, as an array of jobs"
time sweep sweep_name=cells cross_attention.d_k=1,2 seed=0,1
python - "$outputs" <<'PYTHON'
import json, pathlib, sys
outputs = pathlib.Path(sys.argv[1])
results = [json.loads(path.read_text()) for path in sorted(outputs.glob("sweeps/cells/*/result.json"))]
assert [result["status"] for result in results] == ["ok"] * 4, results
made = {path.parent.name: len([one for one in path.parent.glob("*") if len(one.name) == 64]) for path in outputs.glob("stages/*/*")}
print("artifacts:", made)
assert made["pretrain"] == made["attach"] == 1 and made["finetune"] == 4, made
PYTHON

echo "== two ranks under srun"
time timeout 200 srun --nodes 1 --ntasks-per-node 2 --kill-on-bad-exit=1 python -m lockdec.run debug=tiny data.limit=64 \
    "paths.outputs=$work/ranks" pipeline.order='[pretrain]' trainer=ddp trainer.accelerator=cpu

echo "== told to stop, requeued by its script, and gone on"
cat > "$work/job.sh" <<'JOB'
#!/usr/bin/env bash
python -m lockdec.run "$@" & child=$!
trap 'kill -TERM $child' TERM USR1
wait $child; status=$?
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
echo "attempt ${SLURM_RESTART_COUNT:-0} ended with $status"
case $status in 138|143) scontrol requeue "$SLURM_JOB_ID"; sleep 30;; esac
exit $status
JOB
job=$(sbatch --parsable --requeue --open-mode=append --output="$work/job.log" --ntasks 1 --time 20 "$work/job.sh" \
    debug=tiny data.limit=64 "paths.outputs=$work/stopped" hydra.run.dir="$work/stopped/run" pipeline.order='[pretrain]' \
    pretrain.steps=600 trainer.checkpoint_seconds=1000 logger.kinds='[csv]')
for _ in $(seq 240); do [ -s "$work/stopped/run/stages/pretrain/metrics.csv" ] && break; sleep 0.25; done
scancel --batch --signal=TERM "$job"
for _ in $(seq 480); do grep -q "ended with 0" "$work/job.log" 2>/dev/null && break; sleep 0.5; done
cat "$work/job.log"
grep -q "attempt 0 ended with 143" "$work/job.log"
grep -q "attempt 1 ended with 0" "$work/job.log"
echo "all well"
