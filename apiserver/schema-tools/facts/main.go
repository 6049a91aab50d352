// Command facts prints, as JSON, what the struct tags of the published Kubernetes API modules say about every API type: JSON
// names, protobuf field numbers, pointers, omitempty. generate.py runs it; nothing here is linked into Coracle.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Field is one JSON field of a message; fields of inlined structs are listed as if they were its own.
type Field struct {
	JSON      string `json:"json"`
	Type      string `json:"type"`
	Go        string `json:"go"`
	Tag       int    `json:"tag"`
	Outer     []int  `json:"outer,omitempty"` // field numbers of the messages that JSON inlines, from the outside in
	Pointer   bool   `json:"pointer,omitempty"`
	OmitEmpty bool   `json:"omitempty,omitempty"`
	OmitZero  bool   `json:"omitzero,omitempty"`
	Strategy  string `json:"strategy,omitempty"`
	MergeKey  string `json:"mergeKey,omitempty"`
}

// Message is a struct type.
type Message struct {
	Name   string   `json:"name"`
	Kinds  []string `json:"kinds,omitempty"`
	Fields []Field  `json:"fields"`
}

var messages = map[string]*Message{}

func model(t reflect.Type) string {
	return "io.k8s." + strings.ReplaceAll(strings.TrimPrefix(t.PkgPath(), "k8s.io/"), "/", ".") + "." + t.Name()
}

// shape is the type in the table's notation; see table.rs.
func shape(t reflect.Type) string {
	switch t.PkgPath() + "." + t.Name() {
	case "k8s.io/apimachinery/pkg/api/resource.Quantity":
		return "q"
	case "k8s.io/apimachinery/pkg/util/intstr.IntOrString":
		return "o"
	case "k8s.io/apimachinery/pkg/apis/meta/v1.Time":
		return "t"
	case "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":
		return "u"
	case "k8s.io/apimachinery/pkg/apis/meta/v1.Duration":
		return "e"
	case "k8s.io/apimachinery/pkg/runtime.RawExtension":
		return "x"
	case "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":
		return "f"
	case "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":
		return "j"
	case "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":
		return "A"
	case "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":
		return "B"
	case "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray":
		return "S"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shape(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "y"
		}
		if t.Name() == "ExtraValue" {
			return "<" + shape(t.Elem())
		}
		return "[" + shape(t.Elem())
	case reflect.Map:
		return "{" + shape(t.Elem())
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "b"
	case reflect.Int32:
		return "i"
	case reflect.Int64, reflect.Int:
		return "l"
	case reflect.Float64:
		return "d"
	case reflect.Interface:
		return "x"
	case reflect.Struct:
		message(t)
		return model(t)
	}
	panic("no shape for " + t.String())
}

func message(t reflect.Type) *Message {
	name := model(t)
	if known, ok := messages[name]; ok {
		return known
	}
	m := &Message{Name: name}
	messages[name] = m
	m.Fields = fields(t)
	return m
}

func fields(t reflect.Type) []Field {
	var out []Field
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		names := strings.Split(f.Tag.Get("json"), ",")
		number := 0
		if parts := strings.Split(f.Tag.Get("protobuf"), ","); len(parts) > 1 {
			number, _ = strconv.Atoi(parts[1])
		}
		if names[0] == "-" || !f.IsExported() {
			continue
		}
		if names[0] == "" && f.Anonymous {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			for _, field := range fields(inner) {
				if number == 0 {
					field.Tag = 0
				} else {
					field.Outer = append([]int{number}, field.Outer...)
				}
				out = append(out, field)
			}
			continue
		}
		if names[0] == "" {
			continue
		}
		field := Field{
			JSON: names[0], Type: shape(f.Type), Tag: number,
			Go: strings.TrimLeft(f.Type.String(), "*"), Pointer: f.Type.Kind() == reflect.Pointer,
			Strategy: f.Tag.Get("patchStrategy"), MergeKey: f.Tag.Get("patchMergeKey"),
		}
		for _, option := range names[1:] {
			field.OmitEmpty = field.OmitEmpty || option == "omitempty"
			field.OmitZero = field.OmitZero || option == "omitzero"
		}
		out = append(out, field)
	}
	return out
}

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistrationv1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
		autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, certificatesv1.AddToScheme,
		coordinationv1.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme, eventsv1.AddToScheme,
		flowcontrolv1.AddToScheme, networkingv1.AddToScheme, networkingv1beta1.AddToScheme, nodev1.AddToScheme,
		policyv1.AddToScheme, rbacv1.AddToScheme, resourcev1.AddToScheme, schedulingv1.AddToScheme, storagev1.AddToScheme,
		apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme, metricsv1beta1.AddToScheme, metav1.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	for gvk, t := range scheme.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || gvk.Kind == "WatchEvent" {
			continue
		}
		m := message(t)
		m.Kinds = append(m.Kinds, gvk.Group+"/"+gvk.Version+"/"+gvk.Kind)
	}
	message(reflect.TypeOf(metav1.APIResourceList{}))
	message(reflect.TypeOf(metav1.PartialObjectMetadata{}))
	message(reflect.TypeOf(metav1.PartialObjectMetadataList{}))
	if err := json.NewEncoder(os.Stdout).Encode(messages); err != nil {
		panic(err)
	}
}
