//! Which pods a Service selects and which Services select a pod, without looking at the others of their namespace.
//!
//! Both are found by *terms*, a label with its value: a pod stands under each of its labels, a Service under one term of its selector,
//! the rarest among Services. Pure; [`selection`](super) keeps it up to date and says whom a change concerns.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// `NAMESPACE/NAME`, shared by all places where the object stands.
type Name = Arc<str>;
/// Ordered by name, so that what is found does not depend on hashes.
type Bucket<K> = BTreeMap<Name, Arc<K>>;
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A namespace, a label and its value, hashed: terms that fall together cost time, since what is found is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Term(u64);

impl Term {
    fn of(namespace: &str, (label, value): (&String, &String)) -> Term {
        let mut hasher = DefaultHasher::new();
        (namespace, label, value).hash(&mut hasher);
        Term(hasher.finish())
    }
}

/// The Service's selector, if it has one that endpoints follow from.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether the Service selects the pod, which is of its namespace.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let has = |(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value);
    selector(service).is_some_and(|selector| selector.iter().all(has))
}

fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

fn name(metadata: &ObjectMeta) -> Name {
    format!("{}/{}", namespace(metadata), metadata.name.as_deref().unwrap_or_default()).into()
}

fn label_terms(pod: &Pod) -> impl Iterator<Item = Term> {
    pod.metadata.labels.iter().flatten().map(|label| Term::of(namespace(&pod.metadata), label))
}

fn selector_terms(service: &Service) -> impl Iterator<Item = Term> {
    selector(service).into_iter().flatten().map(|label| Term::of(namespace(&service.metadata), label))
}

/// Objects of one kind, by name and by their terms.
struct Side<K> {
    objects: Map<Name, Arc<K>>,
    buckets: Map<Term, Bucket<K>>,
}

impl<K> Default for Side<K> {
    fn default() -> Self {
        Side { objects: Map::default(), buckets: Map::default() }
    }
}

impl<K> Side<K> {
    fn size(&self, term: Term) -> usize {
        self.buckets.get(&term).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, name: Name, object: Arc<K>, terms: impl Iterator<Item = Term>) {
        for term in terms {
            self.buckets.entry(term).or_default().insert(name.clone(), object.clone());
        }
        self.objects.insert(name, object);
    }

    fn remove(&mut self, name: &Name, terms: fn(&K) -> Vec<Term>) -> Option<Arc<K>> {
        let object = self.objects.remove(name)?;
        for term in terms(&object) {
            if let Some(bucket) = self.buckets.get_mut(&term) {
                bucket.remove(name);
                if bucket.is_empty() {
                    self.buckets.remove(&term);
                }
            }
        }
        Some(object)
    }
}

/// All Services and pods, found by each other.
#[derive(Default)]
pub(crate) struct Index {
    services: Side<Service>,
    pods: Side<Pod>,
}

impl Index {
    /// Takes in a Service's newest state.
    pub(crate) fn apply_service(&mut self, service: Arc<Service>) {
        let name = name(&service.metadata);
        self.services.remove(&name, |service| selector_terms(service).collect());
        let rarest = selector_terms(&service).min_by_key(|term| self.services.size(*term));
        self.services.insert(name, service, rarest.into_iter());
    }

    /// Takes in that a Service is gone.
    pub(crate) fn delete_service(&mut self, service: &Service) {
        self.services.remove(&name(&service.metadata), |service| selector_terms(service).collect());
    }

    /// Takes in a pod's newest state; the Services that select it or have selected it.
    pub(crate) fn apply_pod(&mut self, pod: Arc<Pod>) -> Vec<Arc<Service>> {
        let name = name(&pod.metadata);
        let before = self.pods.remove(&name, |pod| label_terms(pod).collect());
        self.pods.insert(name, pod.clone(), label_terms(&pod));
        let mut concerned = self.services_of(&pod);
        if let Some(before) = before.filter(|before| before.metadata.labels != pod.metadata.labels) {
            concerned.extend(self.services_of(&before).into_iter().filter(|service| !selects(service, &pod)));
        }
        concerned
    }

    /// Takes in that a pod is gone; the Services that have selected it.
    pub(crate) fn delete_pod(&mut self, pod: &Pod) -> Vec<Arc<Service>> {
        let known = self.pods.remove(&name(&pod.metadata), |pod| label_terms(pod).collect());
        known.map(|known| self.services_of(&known)).unwrap_or_default()
    }

    fn services_of(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let buckets = label_terms(pod).filter_map(|term| self.services.buckets.get(&term));
        let is_of =
            |service: &&Arc<Service>| namespace(&service.metadata) == namespace(&pod.metadata) && selects(service, pod);
        buckets.flat_map(BTreeMap::values).filter(is_of).cloned().collect()
    }

    /// The pods that the Service selects, ordered by name.
    pub(crate) fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let rarest = selector_terms(service).min_by_key(|term| self.pods.size(*term));
        let Some(bucket) = rarest.and_then(|term| self.pods.buckets.get(&term)) else { return vec![] };
        let is_of = |pod: &&Arc<Pod>| namespace(&pod.metadata) == namespace(&service.metadata) && selects(service, pod);
        bucket.values().filter(is_of).cloned().collect()
    }
}
