#!/bin/sh
# Keeps announcers of Berth waiting, for a day at most, while those of another program than kube-vip answer: they announce
# nothing while somebody else holds this Lease. Fails where it is there already: whoever has it decides.
set -eu
now=$(date -u +%Y-%m-%dT%H:%M:%S.000000Z)
kubectl create --filename - <<LEASE
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: plndr-svcs-lock
  namespace: kube-system
spec:
  holderIdentity: ${1:-metallb}
  leaseDurationSeconds: 86400
  acquireTime: $now
  renewTime: $now
LEASE
