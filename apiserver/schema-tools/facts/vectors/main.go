// Command vectors prints, for every kind of the published Kubernetes API modules, an object with all of its fields filled and one
// with none, as Go's own encoders write them: a line is GROUP/VERSION KIND BASE64-OF-PROTOBUF JSON. Run it in the folder above:
// go run ./vectors > ../../src/schema/protobuf/vectors.txt
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

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
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

type marshaler interface{ Marshal() ([]byte, error) }

// Values differ, so that two fields that change places are noticed.
var count int

func next() int {
	count++
	return count
}

func fill(v reflect.Value, depth int, whole bool) {
	switch x := v.Addr().Interface().(type) {
	case *resource.Quantity:
		*x = resource.MustParse([]string{"1500m", "2Gi", "3k", "7", "12e6"}[next()%5])
		return
	case *intstr.IntOrString:
		if next()%2 == 0 {
			*x = intstr.FromInt32(int32(next()))
		} else {
			*x = intstr.FromString(fmt.Sprintf("p%d", next()))
		}
		return
	case *metav1.Time:
		*x = metav1.Unix(1700000000+int64(next()), 0)
		return
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.Unix(1700000000+int64(next()), 123000))
		return
	case *metav1.Duration:
		x.Duration = time.Duration(next()) * time.Second
		return
	case *runtime.RawExtension:
		x.Raw = []byte(fmt.Sprintf(`{"raw":%d}`, next()))
		return
	case *metav1.FieldsV1:
		*x = metav1.FieldsV1{Raw: []byte(`{"f:spec":{"f:a":{}}}`)}
		return
	case *apiextensionsv1.JSON:
		x.Raw = []byte(fmt.Sprintf(`{"json":[%d]}`, next()))
		return
	case *corev1.PodTemplateSpec:
		// A Pod's own line has all of this.
		if !whole {
			x.Labels = map[string]string{"a": "b"}
			x.Spec.Containers = []corev1.Container{{Name: "c"}}
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1, whole)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if f := v.Type().Field(i); f.IsExported() && f.Type != reflect.TypeOf(metav1.TypeMeta{}) && f.Tag.Get("json") != "-" {
				fill(v.Field(i), depth-1, whole)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{byte(next()), 0, 255})
		} else if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth-1, whole)
		}
	case reflect.Map:
		if depth > 0 {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(value, depth-1, whole)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf(fmt.Sprintf("k%d", next())).Convert(v.Type().Key()), value)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", next()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64, reflect.Int:
		n := int64(next())
		if n%7 == 0 {
			n = -n
		}
		v.SetInt(n)
	case reflect.Float64:
		v.SetFloat(float64(next()) + 0.5)
	}
}

func main() {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistrationv1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme,
		autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, certificatesv1.AddToScheme,
		coordinationv1.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme, eventsv1.AddToScheme,
		flowcontrolv1.AddToScheme, networkingv1.AddToScheme, nodev1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme,
		resourcev1.AddToScheme, schedulingv1.AddToScheme, storagev1.AddToScheme, apiextensionsv1.AddToScheme,
		apiregistrationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	var lines []string
	kinds := scheme.AllKnownTypes()
	var names []string
	byName := map[string]reflect.Type{}
	for gvk, t := range kinds {
		name := gvk.GroupVersion().String() + " " + gvk.Kind
		if strings.HasSuffix(gvk.Kind, "List") || strings.HasSuffix(gvk.Kind, "Options") || gvk.Kind == "WatchEvent" ||
			gvk.Version == runtime.APIVersionInternal || t.PkgPath() == "k8s.io/apimachinery/pkg/apis/meta/v1" {
			continue
		}
		names = append(names, name)
		byName[name] = t
	}
	sort.Strings(names)
	for _, name := range names {
		for _, full := range []bool{true, false} {
			v := reflect.New(byName[name])
			if full {
				count = 0
				fill(v.Elem(), 12, false)
			}
			message, ok := v.Interface().(marshaler)
			if !ok {
				continue
			}
			bytes, err := message.Marshal()
			if err != nil {
				panic(err)
			}
			text, err := json.Marshal(v.Interface())
			if err != nil {
				panic(err)
			}
			lines = append(lines, name+" "+base64.StdEncoding.EncodeToString(bytes)+" "+string(text))
		}
	}
	fmt.Fprintln(out, "# Objects as Go's encoders write them; made by schema-tools/facts/vectors.")
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
}
