package controlplane

import (
	"context"
	"fmt"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// AddNodes registers nodes, as their kubelets would, and waits until pods may run on them. The keys of zones are zone
// names; the values are names of nodes.
func (c *ControlPlane) AddNodes(ctx context.Context, zones map[string][]string) error {
	for zone, names := range zones {
		for _, name := range names {
			if err := c.addNode(ctx, name, zone); err != nil {
				return fmt.Errorf("add node %s: %w", name, err)
			}
		}
	}
	err := wait.PollUntilContextTimeout(ctx, pollInterval, c.config.StartTimeout, true, c.nodesReady)
	if err != nil {
		return fmt.Errorf("wait until the nodes are ready: %w", err)
	}
	return nil
}

func (c *ControlPlane) addNode(ctx context.Context, name, zone string) error {
	size := core.ResourceList{
		core.ResourceCPU:    resource.MustParse("16"),
		core.ResourceMemory: resource.MustParse("64Gi"),
		core.ResourcePods:   resource.MustParse("110"),
	}
	_, err := c.Client.CoreV1().Nodes().Create(ctx, &core.Node{
		ObjectMeta: meta.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				core.LabelHostname: name, core.LabelTopologyZone: zone, core.LabelOSStable: "linux", core.LabelArchStable: "amd64",
			},
		},
		Status: core.NodeStatus{Capacity: size, Allocatable: size},
	}, meta.CreateOptions{})
	return err
}

// nodesReady reports whether the node controller has removed the taint that every new node has.
func (c *ControlPlane) nodesReady(ctx context.Context) (bool, error) {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, node := range nodes.Items {
		if len(node.Spec.Taints) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// AddVolume registers a persistent volume that only nodes of one zone can mount, as cloud disks are. The storage class
// has no provisioner. The volume controller binds claims to such volumes.
func (c *ControlPlane) AddVolume(ctx context.Context, name, class, zone string, size resource.Quantity) error {
	_, err := c.Client.CoreV1().PersistentVolumes().Create(ctx, &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: size},
			AccessModes:                   []core.PersistentVolumeAccessMode{core.ReadWriteOnce},
			StorageClassName:              class,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: "/var/lib/" + name}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{
					{Key: core.LabelTopologyZone, Operator: core.NodeSelectorOpIn, Values: []string{zone}},
				},
			}}}},
		},
	}, meta.CreateOptions{})
	if err != nil {
		return fmt.Errorf("add volume %s: %w", name, err)
	}
	return nil
}
